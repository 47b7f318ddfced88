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
	// jobsSettle is how long a gate may take to find the jobs that were there before it, and jobsMeasure how long it
	// is measured after that: several of its samples and sweeps.
	jobsSettle  = 4 * time.Second
	jobsMeasure = 6 * time.Second
)

// growJobs leaves each gate alone with more and more waiting jobs.
func growJobs(b *bench, _ *process.Group) error {
	b.report.Section("Waiting jobs", fmt.Sprintf("No requests. Jobs with payloads of %d bytes wait, and %d of them leave and come each second. Measured for %v after %v.",
		jobSize, jobsASecond, jobsMeasure, jobsSettle))
	c := report.Chart{Title: "CPU of an idle gate, ms per second", X: "waiting jobs"}
	var rows [][]string
	for i, gate := range b.gates {
		gates, redis := report.Series{Name: gate.Name}, report.Series{Name: "Redis, with " + gate.Name}
		for _, n := range append([]int{0}, powers(100, b.jobs)...) {
			b.say("jobs, %s: %d", gate.Name, n)
			gateCPU, redisCPU, memory, err := b.besideJobs(gate, n)
			if err != nil {
				return fmt.Errorf("%s, %d jobs: %w", gate.Name, n, err)
			}
			rows = append(rows, []string{gate.Name, fmt.Sprint(n), fmt.Sprintf("%.1f", gateCPU), fmt.Sprintf("%.1f", redisCPU), fmt.Sprintf("%.1f", memory)})
			gates.Values, redis.Values = append(gates.Values, gateCPU), append(redis.Values, redisCPU)
			if i == 0 {
				c.Steps = append(c.Steps, fmt.Sprint(n))
			}
			if n == 100_000 && i == len(b.gates)-1 {
				b.report.Note(report.IdleCPU, "", measure.SpreadOf([]float64{gateCPU}))
				b.report.Note(report.IdleRedis, "", measure.SpreadOf([]float64{redisCPU}))
			}
		}
		c.Series = append(c.Series, gates, redis)
	}
	b.report.Rows([]string{"", "waiting jobs", "gate CPU ms/s", "Redis CPU ms/s", "gate MB"}, rows)
	return b.report.Chart("jobs.svg", c)
}

// besideJobs returns the CPU times of a gate and its Redis, in milliseconds a second, and the gate's memory in MB.
func (b *bench) besideJobs(gate servers.Gate, n int) (gateCPU, redisCPU, memory float64, err error) {
	g, err := process.NewGroup(b.ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	defer g.Close()
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		return 0, 0, 0, err
	}
	if err := r.FillQueue(b.ctx, n, jobSize); err != nil {
		return 0, 0, 0, err
	}
	go r.TurnQueue(g.Context(), jobsASecond)
	s, err := gate.Start(g, "gate", r)
	if err != nil {
		return 0, 0, 0, err
	}
	if err := pause(b.ctx, jobsSettle); err != nil {
		return 0, 0, 0, err
	}
	begun, gate0, redis0 := time.Now(), s.CPU(), r.CPU()
	if err := pause(b.ctx, jobsMeasure); err != nil {
		return 0, 0, 0, err
	}
	took, gate1, redis1 := time.Since(begun), s.CPU(), r.CPU()
	used, err := s.Memory()
	perSecond := func(d time.Duration) float64 { return 1e3 * d.Seconds() / took.Seconds() }
	return perSecond(gate1 - gate0), perSecond(redis1 - redis0), float64(used) / 1e6, err
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
