package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

const (
	operatorJobs      = 10_000
	operatorLargeJobs = 20 // of these, and the oldest ones
	operatorLargeSize = 1_000_000
	operatorCallers   = 100 // with jobs
)

const operatorPolicies = `
queues: {default: {max_pending: 20000, fair_share: 0.5}}
policies: {run: {match: [/run], queue: default, becomes_job: true, buckets: [{per: ip, burst: 60, rate: 1/m}]}}
`

// operatorCommands are what is run, and how often.
var operatorCommands = []struct {
	args  string
	times int
}{
	{"show --ip 10.0.0.1", 30},
	{"check --dry-run --timeout 10s --ip 10.0.0.2", 30},
	{"reset --ip 10.0.0.3", 30},
	{"callers", 2},
}

// asked is what runs of a command have cost.
type asked struct {
	took   time.Duration // median
	peakMB float64       // of the largest run
	calls  float64       // of Redis's commands, for a run
	micros float64       // of Redis's time, for a run
	// slowest is the command of Redis whose calls took longest, by Latency.
	slowest string
	servers.Latency
}

// askAsOperator runs the commands for operators beside many buckets and many jobs.
func askAsOperator(b *bench, g *process.Group) error {
	b.report.Section("Commands for operators", fmt.Sprintf("`show`, `callers`, `check --dry-run` and `reset` ([support.md](../support.md)) beside %d buckets of addresses and %d waiting jobs "+
		"of %d callers in a queue with a fair share. %d of the jobs, the oldest, have payloads of 1 MB, the others of 4 kB. Time is the median of whole runs, MB the peak of the largest. "+
		"Calls and time are Redis's own for a run. The last columns are about the command of Redis whose calls took longest, over all runs.",
		b.callers, operatorJobs, operatorCallers, operatorLargeJobs))
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		return err
	}
	b.say("operators: filling Redis")
	if err := errors.Join(
		r.FillBuckets(b.ctx, b.callers), r.FillQueue(b.ctx, 0, operatorLargeJobs, operatorLargeSize),
		r.FillQueue(b.ctx, operatorLargeJobs, operatorJobs, jobSize), r.FillShares(b.ctx, operatorJobs, operatorCallers),
	); err != nil {
		return err
	}
	policies := filepath.Join(g.Dir, "policies.yaml")
	if err := os.WriteFile(policies, []byte(operatorPolicies), 0o600); err != nil {
		return fmt.Errorf("write the policy file: %w", err)
	}
	var rows [][]string
	for _, c := range operatorCommands {
		b.say("operators: %s", c.args)
		a, err := b.asOperator(g, r, policies, strings.Fields(c.args), c.times)
		if err != nil {
			return fmt.Errorf("%s: %w", c.args, err)
		}
		rows = append(rows, []string{"`" + c.args + "`", fmt.Sprint(c.times), fmt.Sprintf("%.0f", a.took.Seconds()*1e3), fmt.Sprintf("%.0f", a.peakMB),
			fmt.Sprintf("%.0f", a.calls), fmt.Sprintf("%.1f", a.micros/1e3), a.slowest, fmt.Sprintf("%.0f", a.P999), fmt.Sprintf("%.0f", a.Longest)})
	}
	b.report.Rows([]string{"command", "runs", "ms", "peak MB", "calls", "Redis ms", "slowest", "99.9 % of its calls µs", "longest µs"}, rows)
	return nil
}

// asOperator runs one command of the newest gate so many times.
func (b *bench) asOperator(g *process.Group, r *servers.Redis, policies string, args []string, times int) (a asked, err error) {
	if err := r.TrackLatency(b.ctx); err != nil {
		return a, err
	}
	env := append([]string{"QUEUE_URL=" + r.URL(), "POLICY_FILE=" + policies}, b.newest().Env...)
	took := make([]time.Duration, times)
	for i := range took {
		var peak int64
		if took[i], peak, err = g.Run(args[0], env, 5*time.Minute, append([]string{b.newest().Binary}, args...)...); err != nil {
			return a, err
		}
		a.peakMB = max(a.peakMB, float64(peak)/1e6)
	}
	slices.Sort(took)
	a.took = took[times/2]
	commands, err := r.Commands(b.ctx)
	if err != nil {
		return a, err
	}
	latencies, err := r.Latencies(b.ctx)
	if err != nil {
		return a, err
	}
	for _, name := range []string{"info", "config|resetstat", "config|set"} { // the benchmark's own
		delete(commands, name)
		delete(latencies, name)
	}
	for _, c := range commands {
		a.calls += c.Calls / float64(times)
		a.micros += c.Micros / float64(times)
	}
	names := slices.Collect(maps.Keys(latencies))
	if len(names) == 0 {
		return a, errors.New("read the latencies of Redis: there are none; it must be 7.0 or newer")
	}
	a.slowest = slices.MaxFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(latencies[x].P999, latencies[y].P999), cmp.Compare(x, y))
	})
	a.Latency = latencies[a.slowest]
	return a, nil
}
