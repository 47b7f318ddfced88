package quota

import (
	"context"
	"errors"
	"log/slog"
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
	f := &Failover{store: g, fallback: fallback, share: share, log: log}
	f.metrics = newMetrics(reg, f.Degraded)
	breaker.Register(reg, "limiter", f.Degraded)
	return f
}

// Take implements [Store]. It fails only with [ErrUnavailable].
func (f *Failover) Take(ctx context.Context, limit Limit, keys ...string) (Result, error) {
	if ctx.Err() == nil {
		start := time.Now()
		r, err := f.store.Take(ctx, limit, keys...)
		if err == nil {
			f.metrics.duration.Observe(time.Since(start).Seconds())
			return r, nil
		}
		if !errors.Is(err, breaker.ErrOpen) {
			f.metrics.errors.Inc()
			f.log.DebugContext(ctx, "limiter store failed", "error", err)
		}
	}
	f.metrics.fallbacks.Inc()
	if f.fallback == nil {
		return Result{}, ErrUnavailable
	}
	r, err := f.fallback.Take(ctx, limit.Scaled(f.share), keys...)
	r.Fallback = true
	return r, err
}

// Refund implements [Store]: the tokens go back to the store that they came from.
func (f *Failover) Refund(ctx context.Context, r Result, keys ...string) error {
	if r.Fallback {
		return f.fallback.Refund(ctx, r, keys...)
	}
	return f.store.Refund(ctx, r, keys...)
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
