package quota

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
)

// ErrUnavailable says that there is no store that could be asked.
var ErrUnavailable = errors.New("the limiter's store is unavailable")

// Failover asks the shared store. If that fails, or is known to be away, it asks the
// fallback.
type Failover struct {
	store    guarded
	fallback Store
	share    float64
	refunds  func(Request) bool // see mayRefund of the stores
	known    *known
	metrics  *metrics
	log      *slog.Logger
}

var _ Store = (*Failover)(nil)

// NewFailover returns a failover from store to fallback. Limits of the fallback are
// scaled by share. With a nil fallback, Take fails with [ErrUnavailable] instead.
// Each server of a [Cluster] has its own circuit breaker.
func NewFailover(store, fallback Store, share float64, reg prometheus.Registerer, log *slog.Logger) *Failover {
	g, ok := store.(guarded)
	if !ok {
		g = guard(store, log)
	}
	refunds := func(req Request) bool { return req.Place.Mode != PlaceNone }
	if r, ok := store.(interface{ mayRefund(req Request) bool }); ok {
		refunds = r.mayRefund
	}
	f := &Failover{store: g, fallback: fallback, share: share, refunds: refunds, known: newKnown(), log: log}
	f.metrics = newMetrics(reg, f.Degraded)
	breaker.Register(reg, "limiter", f.Degraded)
	return f
}

// Take implements [Store]. It fails only with [ErrUnavailable].
func (f *Failover) Take(ctx context.Context, req Request) (Result, error) {
	start, remembers := time.Now(), f.remembers(req)
	if remembers {
		if r, ok := f.known.refuse(req.Buckets, start); ok {
			f.metrics.known.Inc()
			return r, nil
		}
	}
	if ctx.Err() == nil {
		r, err := f.store.Take(ctx, req)
		if err == nil {
			answered := time.Now()
			f.metrics.duration.Observe(answered.Sub(start).Seconds())
			if remembers && r.Empty() {
				f.known.remember(req.Buckets, r, start, answered)
			}
			return r, nil
		}
		if !errors.Is(err, breaker.ErrOpen) && !canceled(ctx) {
			f.metrics.errors.Inc()
			f.log.DebugContext(ctx, "limiter store failed", "error", err)
		}
	}
	if !canceled(ctx) {
		f.metrics.fallbacks.Inc()
	}
	if f.fallback == nil {
		return Result{}, ErrUnavailable
	}
	r, err := f.fallback.Take(ctx, Request{Buckets: f.scaled(req.Buckets)})
	r.Fallback = true
	return r, err
}

// canceled says that nobody waits for an answer any more, as when Envoy is restarted. What
// becomes of such a request says nothing about the store.
func canceled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// remembers says that an empty bucket of the request stays empty until its next token. A
// request whose limits are only recorded needs its place, even with an empty bucket.
func (f *Failover) remembers(req Request) bool {
	return !f.refunds(req) && (!req.Recorded || req.Place.Mode == PlaceNone)
}

// Refund implements [Store]: the tokens go back to the store that they came from.
func (f *Failover) Refund(ctx context.Context, r Result, buckets []Bucket) error {
	if r.Fallback {
		return f.fallback.Refund(ctx, r, f.scaled(buckets))
	}
	return f.store.Refund(ctx, r, buckets)
}

// scaled returns the buckets as the fallback has them.
func (f *Failover) scaled(buckets []Bucket) []Bucket {
	scaled := slices.Clone(buckets)
	for i := range scaled {
		scaled[i].Limit, scaled[i].MaxDebt = scaled[i].Limit.Scaled(f.share), 0
	}
	return scaled
}

// Degraded says whether requests, or some of them, are decided without the shared store.
func (f *Failover) Degraded() bool { return f.store.open() }

// Run probes the store until ctx ends, then returns nil. So the loss of the store is
// noticed while no request comes, too.
func (f *Failover) Run(ctx context.Context) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.probe(ctx)
		}
	}
}

func (f *Failover) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	f.store.probe(ctx)
}
