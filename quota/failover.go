package quota

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

// ErrUnavailable says that no store could be asked.
var ErrUnavailable = errors.New("the limiter's store is unavailable")

const (
	// tripAfter failures in a row open the breaker.
	tripAfter = 3
	// probeInterval is the time between two probes; probeTimeout bounds one.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
)

// probeLimit is never exhausted: at two probes a second each finds it full.
var probeLimit = Limit{Capacity: 1000, Interval: time.Millisecond}

// Failover asks a store and, where that fails, the fallback. After a few
// failures in a row a circuit breaker opens and requests stop asking the store,
// so none waits for it; a probe, which takes a token as requests do, finds out
// when it is back.
type Failover struct {
	store    Store
	fallback Store
	share    float64
	breaker  *gobreaker.CircuitBreaker[Result]
	metrics  *metrics
	log      *slog.Logger
}

var _ Store = (*Failover)(nil)

// NewFailover returns a failover from store to fallback, whose limits are scaled
// by share. With a nil fallback Take fails with [ErrUnavailable] instead.
func NewFailover(store, fallback Store, share float64, reg prometheus.Registerer, log *slog.Logger) *Failover {
	f := &Failover{store: store, fallback: fallback, share: share, metrics: newMetrics(reg), log: log}
	f.breaker = gobreaker.NewCircuitBreaker[Result](gobreaker.Settings{
		Name:          "limiter store",
		Timeout:       probeInterval / 2, // shorter than the interval, so that each probe is let through
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		OnStateChange: f.changed,
		// A caller that went away says nothing about the store.
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	return f
}

// Take implements [Store]. It fails only with [ErrUnavailable].
func (f *Failover) Take(ctx context.Context, limit Limit, keys ...string) (Result, error) {
	if !f.Degraded() && ctx.Err() == nil {
		start := time.Now()
		r, err := f.breaker.Execute(func() (Result, error) { return f.store.Take(ctx, limit, keys...) })
		if err == nil {
			f.metrics.duration.Observe(time.Since(start).Seconds())
			return r, nil
		}
		f.metrics.errors.Inc()
		f.log.DebugContext(ctx, "limiter store failed", "error", err)
	}
	f.metrics.fallbacks.Inc()
	if f.fallback == nil {
		return Result{}, ErrUnavailable
	}
	r, err := f.fallback.Take(ctx, limit.Scaled(f.share), keys...)
	r.Fallback = true
	return r, err
}

// Give implements [Store]: it puts back where the Take took.
func (f *Failover) Give(ctx context.Context, r Result, keys ...string) error {
	if r.Fallback {
		return f.fallback.Give(ctx, r, keys...)
	}
	return f.store.Give(ctx, r, keys...)
}

// Degraded says whether requests are decided without the store.
func (f *Failover) Degraded() bool { return f.breaker.State() != gobreaker.StateClosed }

// Run probes the store until ctx ends, then returns nil.
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
	if _, err := f.breaker.Execute(func() (Result, error) {
		return f.store.Take(ctx, probeLimit, Key("probe", "gate"))
	}); err != nil {
		f.log.DebugContext(ctx, "limiter store probe failed", "error", err)
	}
}

func (f *Failover) changed(_ string, from, to gobreaker.State) {
	switch {
	case from == gobreaker.StateClosed:
		f.metrics.active.Set(1)
		f.log.Warn("limiter store lost: requests are decided without it", "local_buckets", f.fallback != nil)
	case to == gobreaker.StateClosed:
		f.metrics.active.Set(0)
		f.log.Info("limiter store is back")
	}
}
