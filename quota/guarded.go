package quota

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
)

const (
	// tripAfter calls in a row that fail open the breaker.
	tripAfter = 3
	// probeInterval is the time between two probes; probeTimeout bounds one.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
)

// probeLimit is never exhausted: with two probes a second, each finds the bucket full.
var probeLimit = Limit{Capacity: 1000, Interval: time.Millisecond}

// guarded is a store behind circuit breakers.
type guarded interface {
	Store
	// open says whether a breaker of the store is open.
	open() bool
	// probe asks on behalf of nobody, so that the breakers open and close.
	probe(ctx context.Context)
}

// guardedStore is one store behind a circuit breaker. While the breaker is open,
// Take fails at once with [breaker.ErrOpen], so that no request waits. A probe
// takes a token as requests do, and finds out when the store is back.
type guardedStore struct {
	store Store
	calls sharing // the same store, if Takes share its calls; else nil
	b     *breaker.Breaker
	log   *slog.Logger
}

var _ guarded = (*guardedStore)(nil)

// sharing is a store whose Takes share calls. A call that fails says the same of the
// server however many Takes it was for, so the breaker counts calls.
type sharing interface {
	// guardCalls has all calls made by do, which may refuse to.
	guardCalls(do func(context.Context, func(context.Context) error) error)
	// takeAlone is a Take with a call of its own, which nothing refuses.
	takeAlone(ctx context.Context, req Request) (Result, error)
}

// guard puts a closed breaker before store.
func guard(store Store, log *slog.Logger) *guardedStore {
	g := &guardedStore{store: store, log: log, b: breaker.New(breaker.Settings{
		Name:     "limiter",
		Failures: tripAfter,
		Timeout:  probeInterval / 2, // shorter than the interval, so that each probe counts
		Ignore:   blameless,
	}, log)}
	if calls, ok := store.(sharing); ok {
		g.calls = calls
		calls.guardCalls(g.b.Do)
	}
	return g
}

// blameless says that an error tells nothing about the server that was asked. Either
// a bucket of a cluster has moved to another server. Or no server has the bucket's
// slot; chance decides which server is asked for such a bucket.
func blameless(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask || redis.HasErrorPrefix(err, "CLUSTERDOWN Hash slot not served")
}

func (g *guardedStore) open() bool { return g.b.Open() }

// Take implements [Store].
func (g *guardedStore) Take(ctx context.Context, req Request) (r Result, err error) {
	switch {
	case g.b.Open():
		return Result{}, breaker.ErrOpen
	case g.calls != nil:
		return g.store.Take(ctx, req)
	}
	err = g.b.Do(ctx, func(ctx context.Context) (err error) {
		r, err = g.store.Take(ctx, req)
		return err
	})
	return r, err
}

// Refund implements [Store].
func (g *guardedStore) Refund(ctx context.Context, r Result, buckets []Bucket) error {
	if g.b.Open() {
		return breaker.ErrOpen
	}
	return g.store.Refund(ctx, r, buckets)
}

func (g *guardedStore) probe(ctx context.Context) { g.probeKey(ctx, Key("probe", "gate")) }

// probeKey probes with a bucket of this name.
func (g *guardedStore) probeKey(ctx context.Context, key string) {
	take := g.store.Take
	if g.calls != nil {
		take = g.calls.takeAlone
	}
	err := g.b.Probe(ctx, func(ctx context.Context) error {
		_, err := take(ctx, Request{Buckets: []Bucket{{Key: key, Limit: probeLimit}}})
		return err
	})
	if err != nil {
		g.log.DebugContext(ctx, "limiter store probe failed", "error", err)
	}
}
