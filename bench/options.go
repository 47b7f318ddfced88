package main

import (
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// options is what the command line says.
type options struct {
	root     string
	gates    []servers.Gate
	bounds   string
	inFlight []int
	plan     measure.Plan

	out io.Writer
}

const usage = `usage: bench [flags] GROUP...
       bench [flags] check

check compares what a request costs on any machine with the bounds of a file, and exits with 1 if one is exceeded.

Groups:
  limit     all kinds of work below in one table
  allowed   callers whose buckets have tokens
  refused   callers whose buckets are empty
  shed      requests that a full queue refuses, /run and /assistant
  run       /run (buckets and a place in the queue) beside /assistant

All are compared with a gRPC service that answers at once (no-op).

Flags:
`

func parse(help io.Writer, args []string) (*options, []string, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(help)
	f.Usage = func() {
		fmt.Fprint(help, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.root, "root", "..", "the `folder` of refrakt-gate's sources")
	f.Func("variant", "a gate to compare, as `NAME,BINARY[,SETTING=VALUE...]`; BINARY may be a folder with sources, which is built;\nrepeat it: the first is what the others are compared with; without it the gate of -root is measured", func(text string) error {
		parts := strings.Split(text, ",")
		if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
			return fmt.Errorf("%q is not NAME,BINARY", text)
		}
		o.gates = append(o.gates, servers.Gate{Name: parts[0], Binary: parts[1], Env: parts[2:]})
		return nil
	})
	f.StringVar(&o.bounds, "bounds", "bounds.yaml", "the `file` with the bounds of check")
	f.IntVar(&o.plan.Rounds, "rounds", 3, "rounds of each comparison")
	f.DurationVar(&o.plan.Measure, "measure", 1200*time.Millisecond, "time measured in each run")
	f.Float64Var(&o.plan.Foreign, "foreign", 0.15, "`cores` that other processes may use; a run in which they used more is repeated")
	inFlight := f.String("inflight", "1,50,200", "requests in flight")
	if err := f.Parse(args); err != nil {
		return nil, nil, err
	}
	for text := range strings.SplitSeq(*inFlight, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, nil, fmt.Errorf("-inflight: %q is not a positive number", text)
		}
		o.inFlight = append(o.inFlight, n)
	}
	if f.NArg() == 0 {
		f.Usage()
		return nil, nil, fmt.Errorf("say which group to measure")
	}
	return o, f.Args(), nil
}
