package quota

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

const (
	// tripAfter failures in a row open the breaker.
	tripAfter = 3
	// probeInterval is the time between two probes; probeTimeout bounds one.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
)

// probeLimit is never exhausted: at two probes a second each finds it full.
var probeLimit = Limit{Capacity: 1000, Interval: time.Millisecond}

// errOpen says that a store was not asked, because its breaker is open.
var errOpen = errors.New("circuit breaker is open")

// guarded is a store that is not asked while it is known to be away.
type guarded interface {
	Store
	// open says whether it, or a part of it, is not asked.
	open() bool
	// probe finds out whether it can be asked.
	probe(ctx context.Context)
}

// breaker guards one store. After a few failures in a row it opens: Take fails
// at once with errOpen then, so that no request waits. A probe, which takes a
// token as requests do, finds out when the store is back; requests never do.
type breaker struct {
	store Store
	cb    *gobreaker.CircuitBreaker[Result]
	log   *slog.Logger
}

var _ guarded = (*breaker)(nil)

// newBreaker returns a closed breaker before store.
func newBreaker(store Store, log *slog.Logger) *breaker {
	b := &breaker{store: store, log: log}
	b.cb = gobreaker.NewCircuitBreaker[Result](gobreaker.Settings{
		Name:          "limiter store",
		Timeout:       probeInterval / 2, // shorter than the interval, so that each probe is let through
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		OnStateChange: b.changed,
		IsExcluded:    blameless,
	})
	return b
}

// blameless says whether an error says nothing about the store: the caller went
// away, or a cluster's bucket has moved to another server, or is of slots that no
// server has: which one is asked for those is left to chance.
func blameless(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask || redis.HasErrorPrefix(err, "CLUSTERDOWN Hash slot not served") || errors.Is(err, context.Canceled)
}

func (b *breaker) open() bool { return b.cb.State() != gobreaker.StateClosed }

// Take implements [Store].
func (b *breaker) Take(ctx context.Context, limit Limit, keys ...string) (Result, error) {
	if b.open() {
		return Result{}, errOpen
	}
	return b.execute(ctx, limit, keys...)
}

// Give implements [Store].
func (b *breaker) Give(ctx context.Context, r Result, keys ...string) error {
	if b.open() {
		return errOpen
	}
	return b.store.Give(ctx, r, keys...)
}

func (b *breaker) probe(ctx context.Context) { b.probeKey(ctx, Key("probe", "gate")) }

// probeKey probes with a bucket of this name.
func (b *breaker) probeKey(ctx context.Context, key string) {
	if _, err := b.execute(ctx, probeLimit, key); err != nil {
		b.log.DebugContext(ctx, "limiter store probe failed", "error", err)
	}
}

func (b *breaker) execute(ctx context.Context, limit Limit, keys ...string) (Result, error) {
	r, err := b.cb.Execute(func() (Result, error) { return b.store.Take(ctx, limit, keys...) })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return r, errOpen
	}
	return r, err
}

func (b *breaker) changed(_ string, from, to gobreaker.State) {
	switch {
	case from == gobreaker.StateClosed:
		b.log.Warn("limiter store lost: requests are decided without it")
	case to == gobreaker.StateClosed:
		b.log.Info("limiter store is back")
	}
}
