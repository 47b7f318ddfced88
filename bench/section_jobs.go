package main

import (
	"context"
	"fmt"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

const (
	jobSize     = 4000 // bytes of a payload
	jobsASecond = 5
	// jobsSettle is the time for a gate to start and connect. It walks through the jobs that were there before it for
	// minutes if there are 100,000, so this is measured too. jobsMeasure is several of its samples and sweeps.
	jobsSettle  = 20 * time.Second
	jobsMeasure = 10 * time.Second
)

// growJobs leaves each gate alone with more and more waiting jobs.
func growJobs(b *bench, _ *process.Group) error {
	b.report.Section("Waiting jobs", fmt.Sprintf("No requests. Jobs with payloads of %d bytes wait, and %d of them leave and come each second. Measured for %v, %v after the start, "+
		"with one gate and one Redis for each number of jobs at the same time. Redis's CPU is all that it uses: for the gate's samples, for the jobs that leave and come, "+
		"and for the gate's job counter. With many jobs, the counter's walk through all jobs that were there before the gate is under way in that time.", jobSize, jobsASecond, jobsMeasure, jobsSettle))
	c := report.Chart{Title: "CPU of an idle gate, ms per second", X: "waiting jobs"}
	sizes := append([]int{0}, powers(100, b.jobs)...)
	for _, n := range sizes {
		c.Steps = append(c.Steps, fmt.Sprint(n))
	}
	var rows [][]string
	for _, gate := range b.gates {
		b.say("jobs, %s: %d", gate.Name, sizes)
		found, err := b.besideJobs(gate, sizes)
		if err != nil {
			return fmt.Errorf("%s: %w", gate.Name, err)
		}
		gates, redis := report.Series{Name: gate.Name}, report.Series{Name: "Redis, with " + gate.Name}
		for i, f := range found {
			rows = append(rows, []string{gate.Name, c.Steps[i], fmt.Sprintf("%.1f", f.gateCPU), fmt.Sprintf("%.1f", f.redisCPU), fmt.Sprintf("%.1f", f.gateMB)})
			gates.Values, redis.Values = append(gates.Values, f.gateCPU), append(redis.Values, f.redisCPU)
			if sizes[i] == 100_000 && gate.Name == b.newest().Name {
				b.report.Note(report.IdleCPU, "", measure.SpreadOf([]float64{f.gateCPU}))
				b.report.Note(report.IdleRedis, "", measure.SpreadOf([]float64{f.redisCPU}))
			}
		}
		c.Series = append(c.Series, gates, redis)
	}
	b.report.Rows([]string{"", "waiting jobs", "gate CPU ms/s", "Redis CPU ms/s", "gate MB"}, rows)
	return b.report.Chart("jobs.svg", c)
}

// idle is what a gate without requests used: CPU in milliseconds a second, memory in MB.
type idle struct {
	gate                      *servers.Server
	gateCPU, redisCPU, gateMB float64
}

// besideJobs measures a gate beside each number of jobs.
func (b *bench) besideJobs(gate servers.Gate, sizes []int) ([]idle, error) {
	g, err := process.NewGroup(b.ctx)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	found := make([]idle, len(sizes))
	for i, n := range sizes {
		r, err := servers.StartRedis(g, fmt.Sprintf("redis-%d", i))
		if err != nil {
			return nil, err
		}
		if err := r.FillQueue(b.ctx, 0, n, jobSize); err != nil {
			return nil, err
		}
		go r.TurnQueue(g.Context(), jobsASecond)
		if found[i].gate, err = gate.Start(g, fmt.Sprintf("gate-%d", i), r); err != nil {
			return nil, err
		}
	}
	if err := pause(b.ctx, jobsSettle); err != nil {
		return nil, err
	}
	begun := time.Now()
	for i := range found {
		found[i].gateCPU, found[i].redisCPU = -found[i].gate.CPU().Seconds(), -found[i].gate.Redis.CPU().Seconds()
	}
	if err := pause(b.ctx, jobsMeasure); err != nil {
		return nil, err
	}
	perMilli := time.Since(begun).Seconds() / 1e3
	for i := range found {
		f := &found[i]
		f.gateCPU = (f.gateCPU + f.gate.CPU().Seconds()) / perMilli
		f.redisCPU = (f.redisCPU + f.gate.Redis.CPU().Seconds()) / perMilli
		used, err := f.gate.Memory()
		if err != nil {
			return nil, err
		}
		f.gateMB = float64(used) / 1e6
	}
	return found, nil
}

// pause lets some time go by.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
