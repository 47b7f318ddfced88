// Package jobmetrics counts what becomes of the jobs of a queue, each job once over
// all replicas of the gate. docs/adr/0005 says how.
package jobmetrics

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/condition"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// Queue is where the jobs are; package saq has SAQ's. What one call costs the queue
// is bounded, however many jobs there are and however large they are.
type Queue interface {
	// Subscribe passes each status event to deliver until ctx ends or the subscription
	// breaks. It calls ready when it is subscribed.
	Subscribe(ctx context.Context, ready func(), deliver func(job.Event)) error
	// Read looks at jobs. Its answers stand in the order of the lookups.
	Read(ctx context.Context, lookups []job.Lookup) ([]job.Reading, error)
	// ScanUnended returns the ids of some jobs that have not ended, and the cursor of
	// the next call, 0 at the end. ScanAll does so for all jobs that the queue keeps.
	ScanUnended(ctx context.Context, cursor uint64) (ids []string, next uint64, err error)
	ScanAll(ctx context.Context, cursor uint64) (ids []string, next uint64, err error)
}

const (
	stepInterval    = time.Second           // between two steps of the sweeps
	resubscribe     = time.Second           // between two attempts to subscribe
	eventInterval   = 50 * time.Millisecond // between two rounds that count what events told of
	batchJobs       = 256                   // jobs looked at in one round
	stepBatches     = 4                     // rounds of one step of the sweeps
	stepTime        = leaseTime / 2         // bounds all exchanges of one step
	resignTime      = time.Second           // bounds those at the end
	subscribeWithin = 5 * time.Second       // for how long no subscription may last until that is a problem
)

// Counter counts the jobs while it has the lease; the ledger in Redis tells the next
// replica what was counted. Run is all there is to call.
type Counter struct {
	queue   Queue
	ledger  ledger
	sources Sources
	events  *events
	metrics *metrics

	counting, subscription *condition.Condition
	// connected says that there is a subscription. trouble is since when there was none
	// that lasted, in ms since the epoch; 0: there is one, or none is wanted.
	connected    atomic.Bool
	subscribedAt atomic.Int64 // ms since the epoch
	trouble      atomic.Int64
	reason       atomic.Pointer[string] // why the newest subscription ended

	// The rest belongs to the one goroutine that counts.
	token    string // of the lease; empty: this replica does not count
	since    int64  // ms: jobs that had ended by then are not counted
	batches  int64
	pending  *batch // sent to the ledger; the answer is not known
	sweeps   sweeps
	gap      bool        // the walk through all jobs has to begin anew
	found    []candidate // by the sweeps, not yet looked at
	deferred map[string]int
}

// New returns a counter for the queue called name. The ledger is kept in rdb; cfg
// must be valid.
func New(cfg Config, name string, queue Queue, rdb Redis, reg prometheus.Registerer, log *slog.Logger) *Counter {
	c := &Counter{
		queue:        queue,
		ledger:       ledger{rdb: rdb, queue: name},
		sources:      cfg.Sources,
		events:       newEvents(),
		deferred:     make(map[string]int),
		counting:     condition.New(log, "job counting fails", "job counting works again"),
		subscription: condition.New(log, "subscription to job statuses fails", "subscription to job statuses works again"),
	}
	c.metrics = newMetrics(reg, cfg.Sources)
	return c
}

// Problem says in words what keeps jobs from being counted in full; empty if
// nothing does.
func (c *Counter) Problem() string {
	since := c.trouble.Load()
	// Twice the time: a subscription that comes back at once has to last first.
	if since == 0 || time.Since(time.UnixMilli(since)) < 2*subscribeWithin || c.lasting() {
		return ""
	}
	problem := "job metrics: no subscription to the status events; jobs are counted by what the queue keeps of them"
	if reason := c.reason.Load(); reason != nil {
		problem += ": " + *reason
	}
	return problem
}

// Run subscribes to the events, and counts while this replica has the lease, until
// ctx ends. It gives the lease up then and returns nil.
func (c *Counter) Run(ctx context.Context) error {
	c.trouble.Store(time.Now().UnixMilli())
	defer c.trouble.Store(0)
	var subscribing sync.WaitGroup
	defer subscribing.Wait()
	subscribing.Go(func() { c.subscribe(ctx) })
	c.count(ctx)
	return nil
}

// subscribe subscribes anew whenever the subscription breaks: at once, for events
// are missed meanwhile, but not more often than once in a while.
func (c *Counter) subscribe(ctx context.Context) {
	for {
		begin := time.Now()
		err := c.queue.Subscribe(ctx, c.subscribed, c.events.deliver)
		if ctx.Err() != nil {
			return
		}
		if c.lasting() {
			c.trouble.Store(time.Now().UnixMilli())
		}
		c.connected.Store(false)
		reason := err.Error()
		c.reason.Store(&reason)
		c.metrics.subscribed.Set(0)
		c.subscription.Fail(err)
		pause := time.NewTimer(resubscribe - time.Since(begin))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

func (c *Counter) subscribed() {
	c.subscribedAt.Store(time.Now().UnixMilli())
	c.connected.Store(true)
	c.metrics.subscribed.Set(1)
	c.events.markGap() // what was published before
}

// lasting says that there is a subscription that has lasted for a while.
func (c *Counter) lasting() bool {
	return c.connected.Load() && time.Since(time.UnixMilli(c.subscribedAt.Load())) >= subscribeWithin
}

func (c *Counter) count(ctx context.Context) {
	tick := time.NewTicker(stepInterval)
	defer tick.Stop()
	var lastRound time.Time
	c.try(ctx, c.step)
	for {
		select {
		case <-ctx.Done():
			c.resign(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			c.try(ctx, c.step)
		case <-c.events.arrived:
			pause := time.NewTimer(eventInterval - time.Since(lastRound))
			select {
			case <-ctx.Done():
			case <-pause.C:
				c.try(ctx, c.countEvents)
				lastRound = time.Now()
			}
			pause.Stop()
		}
	}
}

// try takes one step and notes its outcome.
func (c *Counter) try(ctx context.Context, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	switch err := do(ctx); {
	case err == nil:
		c.counting.Succeed()
	case errors.Is(ctx.Err(), context.Canceled):
	default:
		c.metrics.errors.Inc()
		c.counting.Fail(err)
	}
}

// step sees to the lease and takes the sweeps on by one step.
func (c *Counter) step(ctx context.Context) error {
	if c.lasting() {
		c.subscription.Succeed()
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	if err := c.lead(ctx); err != nil {
		return err
	}
	if c.token == "" {
		c.events.forget(time.Now().Add(-keepEvents))
		return nil
	}
	// Without a subscription events are missed all the time.
	c.gap = c.events.takeGap() || c.gap || c.trouble.Load() != 0 && !c.connected.Load()
	if len(c.found) == 0 {
		found, begun, err := c.sweeps.next(ctx, c.queue, c.ledger, c.gap)
		if err != nil {
			return err
		}
		c.found, c.gap = found, c.gap && !begun
	}
	for range stepBatches {
		n := min(batchJobs, len(c.found))
		if err := c.record(ctx, c.found[:n], nil); err != nil {
			return err // the same jobs are looked at again
		}
		if c.token == "" {
			return nil
		}
		c.found = c.found[n:]
	}
	c.events.notifyIfAny() // what could not be counted when it arrived
	return nil
}

// lead renews the lease, or tries to get it. A lease that ended is taken under a new
// token: another replica may have counted in between.
func (c *Counter) lead(ctx context.Context) error {
	token, renew := c.token, true
	if token == "" {
		token, renew = rand.Text(), false
	}
	held, since, err := c.ledger.lease(ctx, token, renew)
	switch {
	case err != nil:
		return err
	case !held:
		c.follow()
	case !renew:
		c.token, c.since = token, since
		c.metrics.leader.Set(1)
		c.events.markGap() // while no replica counted
	}
	return nil
}

// follow leaves the counting to another replica.
func (c *Counter) follow() {
	c.token = ""
	c.found = nil
	clear(c.deferred)
	c.metrics.leader.Set(0)
}

// countEvents counts the jobs of which events have arrived.
func (c *Counter) countEvents(ctx context.Context) error {
	if err := c.settle(ctx); err != nil || c.token == "" {
		return err
	}
	ids, seen := c.events.takeFirst(batchJobs)
	if err := c.record(ctx, appendCandidates(nil, ids, fromEvent), seen); err != nil {
		return err
	}
	c.events.notifyIfAny()
	return nil
}

// resign lets another replica go on at once.
func (c *Counter) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resignTime)
	defer cancel()
	if err := c.settle(ctx); err != nil {
		c.counting.Fail(err)
	}
	if c.token == "" {
		return
	}
	if err := c.ledger.resign(ctx, c.token); err != nil {
		c.counting.Fail(err)
	}
	c.follow()
}
