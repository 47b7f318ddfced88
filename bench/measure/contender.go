package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// Contender is one row of a table: a server and what it is asked.
type Contender struct {
	Name string
	// Of is the contender that this one is compared with, besides the first of the table; empty: none.
	Of      string
	Servers []*servers.Server // asked in turn
	Behind  []*process.Process
	Traffic *load.Traffic
	Conns   int // 0: two
	// Want is what nearly all answers must say, unless Any verdict will do.
	Want load.Verdict
	Any  bool
	Warm time.Duration
	// Background is how many scripts a second the server calls without requests. They do not count.
	Background float64
	// NeedsRedis says that the answers can't be given without calls of Redis.
	NeedsRedis bool
	// Drive puts on the load instead of Traffic.
	Drive func(context.Context, load.Load) (load.Result, error)
	// Ruler says that the contender is the measure of the time in Redis.
	Ruler bool
}

// The least share of the answers that must be as wanted, and the greatest that may be no verdict at all.
const (
	leastWanted = 0.95
	mostFailed  = 0.005
)

var errWrongAnswers = errors.New("wrong answers")

// What Redis may read besides the calls that are counted: samples of the queue, other commands without requests, and a
// long call in several parts. Besides, there are the commands of the benchmark itself, a few in each run.
const (
	ownReads       = 10
	readsPerCall   = 4
	readsPerSecond = 200
)

// For is a run that takes some time, after the contender's warm-up.
func (c *Contender) For(ctx context.Context, g *process.Group, inFlight int, span time.Duration) (Sample, error) {
	l := c.Load(inFlight, 0)
	l.Warm, l.Measure = c.Warm, span
	return c.run(ctx, g, l)
}

// Exactly is a run of so many requests, without a warm-up.
func (c *Contender) Exactly(ctx context.Context, g *process.Group, inFlight int, count int64) (Sample, error) {
	return c.run(ctx, g, c.Load(inFlight, count))
}

// Load is the load of a run of so many requests.
func (c *Contender) Load(inFlight int, count int64) load.Load {
	l := load.Load{Conns: 2, InFlight: inFlight, Count: count, Traffic: c.Traffic}
	if c.Conns > 0 {
		l.Conns = c.Conns
	}
	for _, s := range c.Servers {
		l.Addrs = append(l.Addrs, s.Addr)
	}
	return l
}

func (c *Contender) run(ctx context.Context, g *process.Group, l load.Load) (Sample, error) {
	var a, b snapshot
	var errA, errB error
	l.Begin = func() { a, errA = c.take(ctx, g, true) }
	l.End = func() { b, errB = c.take(ctx, g, false) }
	drive := c.Drive
	if drive == nil {
		drive = func(ctx context.Context, l load.Load) (load.Result, error) { return l.Run(ctx) }
	}
	result, err := drive(ctx, l)
	if err := errors.Join(err, errA, errB); err != nil {
		return Sample{}, err
	}
	wall := b.at.Sub(a.at).Seconds()
	calls, reads := b.calls-a.calls, b.reads-a.reads
	if reads > ownReads+readsPerCall*calls+readsPerSecond*wall {
		return Sample{}, fmt.Errorf("redis was asked %.0f times, but only %.0f calls are of a kind that is counted: %q, or else %q", reads, calls, scripts, plain)
	}
	b.calls -= c.Background * wall
	s := between(a, b, result)
	if c.NeedsRedis && s.RedisCalls <= 0 {
		return s, fmt.Errorf("%w: they were given without Redis", errWrongAnswers)
	}
	if !c.Any && s.Share[c.Want] < leastWanted || s.Share[load.Failed] > mostFailed {
		return s, fmt.Errorf("%w: allowed, limited, shed, failed are %v; want %s", errWrongAnswers, result.Counts, c.Want)
	}
	return s, nil
}
