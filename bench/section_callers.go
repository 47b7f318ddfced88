package main

import (
	"fmt"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// longLife are the settings with which a bucket lives longest, and has tokens enough for all runs. In a bucket that so
// many callers share as a full store makes share one, they are used up soon. The gate waits for Redis, so that a machine
// that stalls does not make it use its own buckets.
var longLife = []string{"RATE_LIMIT_ASSISTANT_PER_MINUTE=1", "RATE_LIMIT_ASSISTANT_BURST=1000", "REDIS_TIMEOUT=10s"}

const callersMB = 1e6

// callersRow is what was found with one number of callers in one store.
type callersRow struct {
	callers, refused       int64
	gateMB, redisMB, bytes float64 // bytes are per key in Redis
	sample                 measure.Sample
}

// growCallers has more and more callers ask, with buckets in Redis and in memory.
func growCallers(b *bench, _ *process.Group) error {
	b.report.Section("Callers", "First each caller asks once, which makes two buckets, for its address and its user. Then callers ask at random, 50 in flight. "+
		"Each bucket lives for a minute after it was used. Bytes are those of a key in Redis with all that belongs to it. "+
		"A caller is refused only where it shares a bucket with others for lack of room.")
	rates := report.Chart{Title: "requests per second", X: "callers"}
	memory := report.Chart{Title: "MB", X: "callers", Series: []report.Series{{Name: "gate, buckets in Redis"}, {Name: "gate, buckets in memory"}, {Name: "Redis"}}}
	var rows [][]string
	for store, name := range []string{"Redis", "memory"} {
		series := report.Series{Name: "buckets in " + name}
		for _, n := range powers(100, b.callers) {
			b.say("callers, buckets in %s: %d", name, n)
			r, err := b.callersIn(n, store == 0)
			if err != nil {
				return fmt.Errorf("%d callers, buckets in %s: %w", n, name, err)
			}
			b.report.Runs(r.sample.Foreign)
			series.Values = append(series.Values, r.sample.Rate)
			memory.Series[store].Values = append(memory.Series[store].Values, r.gateMB)
			inRedis, bytes := "", ""
			if store == 0 {
				memory.Series[2].Values = append(memory.Series[2].Values, r.redisMB)
				inRedis, bytes = fmt.Sprintf("%.1f", r.redisMB), fmt.Sprintf("%.0f", r.bytes)
				rates.Steps = append(rates.Steps, fmt.Sprint(n))
			} else if n == 1_000_000 {
				b.report.Note(report.MemorySize, "", measure.SpreadOf([]float64{r.gateMB}))
				b.report.Note(report.MemoryShared, "", measure.SpreadOf([]float64{float64(r.refused)}))
			}
			rows = append(rows, []string{fmt.Sprint(n), name, fmt.Sprint(r.refused), fmt.Sprintf("%.0f", r.sample.Rate), fmt.Sprintf("%.0f", r.sample.P99),
				fmt.Sprintf("%.1f", r.sample.ServerCPU), fmt.Sprintf("%.1f", r.sample.RedisCPU), fmt.Sprintf("%.1f", r.gateMB), inRedis, bytes})
		}
		rates.Series = append(rates.Series, series)
	}
	memory.Steps = rates.Steps
	b.report.Rows([]string{"callers", "buckets in", "refused", "requests/s", "p99 µs", "CPU µs", "Redis CPU µs", "gate MB", "Redis MB", "bytes per key"}, rows)
	if err := b.report.Chart("callers.svg", rates); err != nil {
		return err
	}
	return b.report.Chart("memory.svg", memory)
}

// callersIn measures one number of callers.
func (b *bench) callersIn(n int, inRedis bool) (row callersRow, err error) {
	g, err := process.NewGroup(b.ctx)
	if err != nil {
		return row, err
	}
	defer g.Close()
	var r *servers.Redis
	if inRedis {
		if r, err = servers.StartRedis(g, "redis"); err != nil {
			return row, err
		}
	}
	gate, err := b.newest().Start(g, "gate", r, longLife...)
	if err != nil {
		return row, err
	}
	c := measure.Contender{Servers: []*servers.Server{gate}, Traffic: load.Check("assistant", n).Patient(), Warm: brief, Any: true}
	row.callers = int64(n)
	if err := b.fillBuckets(&row, c, r); err != nil {
		return row, err
	}
	if row.sample, err = c.For(b.ctx, g, 50, b.plan.Measure); err != nil {
		return row, err
	}
	used, err := gate.Memory()
	row.gateMB = float64(used) / callersMB
	return row, err
}

// fillBuckets has each caller ask once, and looks at what Redis needs for that.
func (b *bench) fillBuckets(row *callersRow, c measure.Contender, r *servers.Redis) error {
	each := c
	each.Traffic = c.Traffic.Of(0, int(row.callers))
	each.Traffic.InTurn = true
	var empty int64
	if r != nil {
		// The gate's connections need memory in Redis too. They are there before it is looked at.
		warm := c
		warm.Traffic = c.Traffic.Of(load.MaxCaller, 1)
		if _, err := warm.Load(200, 2000).Run(b.ctx); err != nil {
			return err
		}
		if err := r.FlushAll(b.ctx).Err(); err != nil {
			return fmt.Errorf("empty Redis: %w", err)
		}
		var err error
		if empty, err = r.UsedMemory(b.ctx); err != nil {
			return err
		}
	}
	result, err := each.Load(200, row.callers).Run(b.ctx)
	if err != nil {
		return err
	}
	row.refused = result.Counts[load.Limited]
	if r == nil {
		return nil
	}
	used, err := r.UsedMemory(b.ctx)
	if err != nil {
		return err
	}
	keys, err := r.DBSize(b.ctx).Result()
	if err != nil {
		return fmt.Errorf("count Redis's keys: %w", err)
	}
	row.redisMB, row.bytes = float64(used)/callersMB, float64(used-empty)/float64(max(1, keys))
	return nil
}
