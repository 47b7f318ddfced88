package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// measure measures the groups one after the other.
func (o *options) measure(ctx context.Context, names []string) error {
	for _, name := range names {
		if groups[name] == nil {
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
		if err := o.group(ctx, name); err != nil {
			return err
		}
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
	kinds []kind
}

var groups = map[string]*group{
	"limit":   {"Everything that the gate does.", []kind{allowed, refused, shedRun, shedAssistant, runAdmitted, runAssistant}},
	"allowed": {"Callers whose buckets have tokens: 100 000 of them, at random.", []kind{allowed}},
	"refused": {"50 callers whose buckets are empty but for a token each 2 s.", []kind{refused}},
	"shed":    {"60 jobs wait (`QUEUE_MAX_PENDING=40`), and 5 of them leave and come each second.", []kind{shedRun, shedAssistant}},
	"run":     {"`/run` takes tokens and a place in the queue, `/assistant` only tokens; the settings of both are the same.", []kind{runAdmitted, runAssistant}},
}

// contenders starts the no-op, Redis alone and each gate at each kind of work.
func (o *options) contenders(g *process.Group, kinds []kind) ([]measure.Contender, error) {
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
	list := []measure.Contender{noopContender(noop)}
	stacks := make([]gateStack, len(o.gates))
	for i, gate := range o.gates {
		stacks[i] = gateStack{g: g, gate: gate, name: fmt.Sprintf("gate-%d", i), running: make(map[condition]*servers.Server)}
	}
	for _, k := range kinds {
		for i := range stacks {
			c, err := stacks[i].contender(k)
			if err != nil {
				return nil, fmt.Errorf("start %s: %w", stacks[i].gate.Name, err)
			}
			if i > 0 {
				c.Of = contenderName(o.gates[0], k)
			}
			list = append(list, c)
		}
	}
	return append(list, ruler), nil
}

func contenderName(gate servers.Gate, k kind) string { return gate.Name + ", " + k.String() }
