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
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// bench measures what the command line asks for.
type bench struct {
	options

	ctx    context.Context
	report *report.Report
}

func (b *bench) run() error {
	built, err := process.NewGroup(b.ctx)
	if err != nil {
		return err
	}
	defer built.Close()
	if err := b.buildGates(built); err != nil {
		return err
	}
	if b.checks {
		return b.check()
	}
	before := conditions()
	for _, s := range b.sections {
		if err := b.section(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	introduction := b.introduction(before)
	if b.dir == "" {
		_, err := b.out.Write(b.report.Markdown(introduction))
		return err
	}
	return b.report.Write(b.dir, introduction)
}

// section measures one section with programs of its own.
func (b *bench) section(s section) error {
	g, err := process.NewGroup(b.ctx)
	if err != nil {
		return err
	}
	defer g.Close()
	return s.measure(b, g)
}

// buildGates builds the gates that are given as sources.
func (b *bench) buildGates(g *process.Group) error {
	for i := range b.gates {
		gate := &b.gates[i]
		info, err := os.Stat(gate.Binary)
		if err != nil {
			return fmt.Errorf("find %s: %w", gate.Name, err)
		}
		if info.IsDir() {
			b.say("building %s", gate.Name)
			if gate.Binary, err = servers.Build(g, gate.Binary, filepath.Join(g.Dir, fmt.Sprint(i))); err != nil {
				return err
			}
		}
	}
	return nil
}

// check compares the first gate with the bounds.
func (b *bench) check() error {
	bounds, err := check.ReadBounds(b.bounds)
	if err != nil {
		return err
	}
	findings, err := check.Check{Gate: b.gates[0], Progress: b.plan.Progress}.Run(b.ctx)
	if err != nil {
		return err
	}
	if wrong := bounds.Compare(b.out, findings); len(wrong) > 0 {
		return fmt.Errorf("the bounds in %s were not kept:\n  %s", b.bounds, strings.Join(wrong, "\n  "))
	}
	return nil
}

// newest is the gate whose numbers count for the goals.
func (b *bench) newest() servers.Gate { return b.gates[len(b.gates)-1] }

// before is the name of the gate that the i-th is compared with.
func (b *bench) before(i int) string {
	if i == 0 {
		return ""
	}
	return b.gates[0].Name
}

// compare measures contenders and adds the table to the report.
func (b *bench) compare(g *process.Group, name string, inFlight int, contenders []measure.Contender) (*measure.Table, error) {
	t, err := b.plan.Compare(b.ctx, g, name, inFlight, contenders)
	if err != nil {
		return nil, err
	}
	b.report.Table(t)
	return t, nil
}

// say tells the progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.plan.Progress, format+"\n", args...)
}
