package check

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

// Check measures one gate.
type Check struct {
	Gate     servers.Gate
	Progress io.Writer

	ctx context.Context
}

// Run measures everything, each group of programs by itself.
func (c Check) Run(ctx context.Context) (findings []Finding, err error) {
	c.ctx = ctx
	c.Gate.Env = append(slices.Clone(c.Gate.Env), patient)
	for _, part := range []func(*process.Group) ([]Finding, error){c.requests, c.redisTime, c.redisBytes, c.memory} {
		found, err := c.part(part)
		if err != nil {
			return nil, err
		}
		findings = append(findings, found...)
	}
	return findings, nil
}

// patient is the setting of a gate that waits for Redis where another would decide by itself, so that a machine that
// stalls changes no answer.
const patient = "REDIS_TIMEOUT=10s"

func (c Check) part(part func(*process.Group) ([]Finding, error)) ([]Finding, error) {
	g, err := process.NewGroup(c.ctx)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return part(g)
}

// How many requests are counted, and how many come before them: so many that the callers who are to be refused have
// used up their tokens.
const (
	counted, countedAlone = 20_000, 3_000
	before                = 5_000
)

// requests counts allocations and Redis calls of each kind of request.
func (c Check) requests(g *process.Group) (findings []Finding, err error) {
	stack := work.NewStack(g, c.Gate, "gate")
	for _, k := range []work.Kind{work.Allowed, work.Refused, work.ShedRun, work.ShedAssistant, work.Run} {
		fmt.Fprintf(c.Progress, "requests: %s\n", k)
		contender, err := stack.Contender(k)
		if err != nil {
			return nil, err
		}
		contender.Traffic = contender.Traffic.Patient()
		if err := warm(c.ctx, &contender, before); err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		alone, err := contender.Exactly(c.ctx, g, 1, countedAlone)
		if err != nil {
			return nil, fmt.Errorf("%s, 1 in flight: %w", k, err)
		}
		many, err := contender.Exactly(c.ctx, g, 50, counted)
		if err != nil {
			return nil, fmt.Errorf("%s, 50 in flight: %w", k, err)
		}
		findings = append(findings,
			one("allocations per Check", k.String(), many.Allocs),
			one("Redis calls per Check, 1 in flight", k.String(), alone.RedisCalls),
			one("Redis calls per Check, 50 in flight", k.String(), many.RedisCalls))
	}
	return findings, nil
}

// redisTime compares the time in Redis of takes with that of the shortest script. Redis counts the time in which the
// machine lets it wait, too. So the runs are short and many, and the lower quartile counts: other programs disturb the
// median more, and the least ratio comes from a pair of which only the shortest script was disturbed.
func (c Check) redisTime(g *process.Group) ([]Finding, error) {
	const rounds, span, settle = 25, 150 * time.Millisecond, 50 * time.Millisecond
	allowed, err := work.NewStack(g, c.Gate, "gate").Contender(work.Allowed)
	if err != nil {
		return nil, err
	}
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		return nil, err
	}
	ruler, err := measure.Ruler(c.ctx, r)
	if err != nil {
		return nil, err
	}
	allowed.Traffic = allowed.Traffic.Patient()
	ruler.Warm, allowed.Warm = settle, settle // what expires is no script's time
	plan := measure.Plan{Rounds: rounds, Measure: span, Foreign: anyNumber, Progress: c.Progress}
	t, err := plan.Compare(c.ctx, g, "Redis time", 50, []measure.Contender{ruler, allowed})
	if err != nil {
		return nil, err
	}
	ratios := t.Ratios(1, 0, measure.RedisTime)
	return []Finding{{"Redis time per take", work.Allowed.String(), measure.LowerQuartile(ratios), measure.SpreadOf(ratios)}}, nil
}

// anyNumber of cores may be used by others: all that is compared here does not depend on them.
const anyNumber = 1e9

// warm sends so many requests that do not count.
func warm(ctx context.Context, c *measure.Contender, requests int64) error {
	_, err := c.Load(50, requests).Run(ctx)
	return err
}

// one is a finding of a single run.
func one(name, of string, v float64) Finding {
	return Finding{name, of, v, measure.SpreadOf([]float64{v})}
}
