package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/bench/check"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

// measure measures the groups one after the other.
func (o *options) measure(ctx context.Context, names []string) error {
	for _, name := range names {
		if groups[name] == nil && name != "check" {
			return fmt.Errorf("no group is called %q: see bench --help", name)
		}
	}
	built, err := process.NewGroup(ctx)
	if err != nil {
		return err
	}
	defer built.Close()
	if err := o.buildGates(built); err != nil {
		return err
	}
	for _, name := range names {
		do := func() error { return o.group(ctx, name) }
		if name == "check" {
			do = func() error { return o.check(ctx) }
		}
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// check compares the first gate with the bounds.
func (o *options) check(ctx context.Context) error {
	bounds, err := check.ReadBounds(o.bounds)
	if err != nil {
		return err
	}
	findings, err := check.Check{Gate: o.gates[0], Progress: o.plan.Progress}.Run(ctx)
	if err != nil {
		return err
	}
	if wrong := bounds.Compare(o.out, findings); len(wrong) > 0 {
		return fmt.Errorf("the bounds in %s were not kept:\n  %s", o.bounds, strings.Join(wrong, "\n  "))
	}
	return nil
}

// buildGates builds the gates that are given as sources.
func (o *options) buildGates(g *process.Group) error {
	if len(o.gates) == 0 {
		o.gates = []servers.Gate{{Name: "gate", Binary: o.root}}
	}
	for i := range o.gates {
		gate := &o.gates[i]
		path, err := filepath.Abs(gate.Binary)
		if err != nil {
			return fmt.Errorf("find %s: %w", gate.Name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("find %s: %w", gate.Name, err)
		}
		if info.IsDir() {
			fmt.Fprintf(o.plan.Progress, "building %s\n", gate.Name)
			folder := filepath.Join(g.Dir, fmt.Sprint(i))
			if path, err = servers.Build(g, path, folder); err != nil {
				return err
			}
		}
		gate.Binary = path
	}
	return nil
}

// group starts what a group compares, measures it and writes its tables.
func (o *options) group(ctx context.Context, name string) error {
	g, err := process.NewGroup(ctx)
	if err != nil {
		return err
	}
	defer g.Close()
	group := groups[name]
	contenders, err := o.contenders(g, group.kinds)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(o.out, "\n## %s\n\n%s\n", name, group.about)
	for _, n := range o.inFlight {
		t, err := o.plan.Compare(ctx, g, name, n, contenders)
		if err != nil {
			return err
		}
		t.Write(o.out)
	}
	return nil
}

type group struct {
	about string
	kinds []work.Kind
}

var groups = map[string]*group{
	"limit":   {"Everything that the gate does.", []work.Kind{work.Allowed, work.Refused, work.ShedRun, work.ShedAssistant, work.Run, work.RunAssistant}},
	"allowed": {"Callers whose buckets have tokens: 100 000 of them, at random.", []work.Kind{work.Allowed}},
	"refused": {"50 callers whose buckets are empty but for a token each 2 s.", []work.Kind{work.Refused}},
	"shed":    {"60 jobs wait (`QUEUE_MAX_PENDING=40`), and 5 of them leave and come each second.", []work.Kind{work.ShedRun, work.ShedAssistant}},
	"run":     {"`/run` takes tokens and a place in the queue, `/assistant` only tokens; the settings of both are the same.", []work.Kind{work.Run, work.RunAssistant}},
}

// contenders starts the no-op, Redis alone and each gate at each kind of work.
func (o *options) contenders(g *process.Group, kinds []work.Kind) ([]measure.Contender, error) {
	noop, err := servers.StartNoop(g, "noop", true, servers.OK())
	if err != nil {
		return nil, err
	}
	plain, err := servers.StartRedis(g, "redis-plain")
	if err != nil {
		return nil, err
	}
	ruler, err := measure.Ruler(g.Context(), plain)
	if err != nil {
		return nil, err
	}
	list := []measure.Contender{work.Noop(noop)}
	stacks := make([]*work.Stack, len(o.gates))
	for i, gate := range o.gates {
		stacks[i] = work.NewStack(g, gate, fmt.Sprintf("gate-%d", i))
	}
	for _, k := range kinds {
		for i, stack := range stacks {
			c, err := stack.Contender(k)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				c.Of = work.Name(o.gates[0], k)
			}
			list = append(list, c)
		}
	}
	return append(list, ruler), nil
}
