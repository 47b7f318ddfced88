package check

import (
	"context"
	"fmt"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// oneToken is the setting with the longest life of a bucket that holds one token.
var oneToken = []string{"RATE_LIMIT_ASSISTANT_BURST=1", "RATE_LIMIT_ASSISTANT_PER_MINUTE=1"}

const tokenLife = time.Minute

// redisBytes measures how much memory Redis needs for each bucket.
func (c Check) redisBytes(g *process.Group) ([]Finding, error) {
	const callers, bucketsEach = 20_000, 2
	fmt.Fprintf(c.Progress, "Redis memory: %d callers\n", callers)
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		return nil, err
	}
	gate, err := c.Gate.Start(g, "gate", r, oneToken...)
	if err != nil {
		return nil, err
	}
	// The gate's connections and scripts need memory in Redis too. They are there before it is looked at.
	if _, err := eachOnce(c.ctx, gate, callers); err != nil {
		return nil, err
	}
	if err := r.FlushAll(c.ctx).Err(); err != nil {
		return nil, fmt.Errorf("empty Redis: %w", err)
	}
	empty, err := r.UsedMemory(c.ctx)
	if err != nil {
		return nil, err
	}
	result, err := eachOnce(c.ctx, gate, callers)
	if err != nil {
		return nil, err
	}
	if n := result.Counts[load.Allowed]; n != callers {
		return nil, fmt.Errorf("memory of Redis: %d of %d callers were allowed", n, callers)
	}
	used, err := r.UsedMemory(c.ctx)
	if err != nil {
		return nil, err
	}
	return []Finding{one("bytes per bucket", "Redis", float64(used-empty)/(callers*bucketsEach))}, nil
}

// memory measures a gate with a million callers in memory, and how many of them are refused, although each asks once:
// because it shares a bucket with somebody else.
func (c Check) memory(g *process.Group) ([]Finding, error) {
	const callers = 1_000_000
	fmt.Fprintf(c.Progress, "memory of a gate without Redis: %d callers\n", callers)
	gate, err := c.Gate.Start(g, "gate", nil, oneToken...)
	if err != nil {
		return nil, err
	}
	result, err := eachOnce(c.ctx, gate, callers)
	if err != nil {
		return nil, err
	}
	used, err := gate.Memory()
	if err != nil {
		return nil, err
	}
	if result.Took > tokenLife {
		return nil, fmt.Errorf("memory: %d callers needed %v, but the buckets live for %v: this machine is too slow or too busy to hold them all at once",
			callers, result.Took.Round(time.Second), tokenLife)
	}
	if n := result.Counts[load.Failed] + result.Counts[load.Shed]; n > 0 {
		return nil, fmt.Errorf("memory: %d of %d answers were wrong", n, callers)
	}
	return []Finding{
		one("buckets in memory", "MB of a gate with a million callers", float64(used)/1e6),
		one("buckets in memory", "callers refused because they share a bucket", float64(result.Counts[load.Limited])),
	}, nil
}

// eachOnce has each of so many callers ask once.
func eachOnce(ctx context.Context, gate *servers.Server, callers int) (load.Result, error) {
	t := load.Check("assistant", callers).Patient()
	t.InTurn = true
	c := measure.Contender{Servers: []*servers.Server{gate}, Traffic: t}
	return c.Load(200, int64(callers)).Run(ctx)
}
