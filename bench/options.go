package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// options is what the command line says.
type options struct {
	root, envoy, python, peer string // folder of the sources, and programs
	gates                     []servers.Gate
	checks                    bool // measure for the bounds, no sections
	bounds                    string
	sections                  []section
	inFlight                  []int
	plan                      measure.Plan
	workers                   int
	callers, jobs             int // the most that the gate is tried with
	dir                       string

	out io.Writer
}

const usage = `usage: bench [flags] WHAT...
       bench [flags] check

Measures the gate on this machine, and writes tables (Markdown) to standard output or, with plots, to a folder.
check compares what a request costs on any machine with bounds, and exits with 1 if one is exceeded.

What to measure:
  all       everything up to the empty line
%s
Flags:
`

func parse(help io.Writer, args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(help)
	f.Usage = func() {
		fmt.Fprintf(help, usage, strings.Replace(sectionList(), "  "+parts[0].name, "\n  "+parts[0].name, 1))
		f.PrintDefaults()
	}
	f.StringVar(&o.root, "root", "..", "`folder` of refrakt-gate's sources")
	f.StringVar(&o.envoy, "envoy", "", "Envoy's `binary` (default that of make setup)")
	f.StringVar(&o.python, "python", "", "Python's `binary`, with python/requirements.txt (default that of make bench)")
	f.StringVar(&o.peer, "peer", "", "`binary` of envoyproxy/ratelimit, to be measured too")
	f.Func("variant", "a gate, as `NAME,BINARY[,SETTING=VALUE...]`; BINARY may be a folder with sources, which is built.\n"+
		"Repeat it to compare gates with the first of them. Without it, the gate of -root is measured", func(text string) error {
		gate, err := variant(text)
		o.gates = append(o.gates, gate)
		return err
	})
	f.StringVar(&o.bounds, "bounds", "bounds.yaml", "`file` with the bounds of check")
	f.StringVar(&o.dir, "out", "", "`folder` for README.md and plots (default: tables to standard output)")
	f.IntVar(&o.plan.Rounds, "rounds", 4, "rounds of a comparison; what grows is measured in half as many")
	f.DurationVar(&o.plan.Measure, "measure", 1200*time.Millisecond, "time measured in each run")
	f.Float64Var(&o.plan.Foreign, "foreign", 0.15, "`cores` that other processes may use; a run in which they use more is repeated")
	f.IntVar(&o.workers, "workers", 1, "Envoy's worker threads")
	f.IntVar(&o.callers, "callers", 1_000_000, "most callers to try")
	f.IntVar(&o.jobs, "jobs", 100_000, "most waiting jobs to try")
	inFlight := f.String("inflight", "50,200", "requests in flight, a `list`, where it does not grow")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() == 0 {
		f.Usage()
		return o, errors.New("say what to measure")
	}
	if err := o.paths(); err != nil {
		return o, err
	}
	var err error
	if o.inFlight, err = numbers(*inFlight); err != nil {
		return o, fmt.Errorf("-inflight: %w", err)
	}
	if o.plan.Rounds < 1 || o.plan.Measure <= 0 {
		return o, errors.New("-rounds and -measure must be above 0")
	}
	if o.checks = f.Arg(0) == "check" && f.NArg() == 1; !o.checks {
		o.sections, err = sectionsOf(f.Args())
	}
	return o, err
}

// paths sets the paths that are not given and makes all of them absolute, because programs run in folders of their own.
func (o *options) paths() error {
	if len(o.gates) == 0 {
		o.gates = []servers.Gate{{Name: "gate", Binary: o.root}}
	}
	if o.envoy == "" {
		o.envoy = filepath.Join(o.root, ".venv/bin/envoy")
	}
	if o.python == "" {
		o.python = filepath.Join(o.root, "bench/.venv/bin/python")
	}
	paths := []*string{&o.root, &o.envoy, &o.python, &o.peer}
	for i := range o.gates {
		paths = append(paths, &o.gates[i].Binary)
	}
	for _, path := range paths {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("find %s: %w", *path, err)
		}
		*path = absolute
	}
	return nil
}

func variant(text string) (servers.Gate, error) {
	parts := strings.Split(text, ",")
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return servers.Gate{}, fmt.Errorf("%q is not NAME,BINARY", text)
	}
	return servers.Gate{Name: parts[0], Binary: parts[1], Env: parts[2:]}, nil
}

func numbers(list string) (all []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a positive number", text)
		}
		all = append(all, n)
	}
	return all, nil
}
