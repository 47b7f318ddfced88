package quota

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// brokenStore is a Memory that can be told to fail or to hang.
type brokenStore struct {
	*Memory
	asked atomic.Int64
	fails atomic.Bool
	hangs atomic.Bool
}

func (s *brokenStore) Take(ctx context.Context, req Request) (Result, error) {
	s.asked.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return Result{}, ctx.Err()
	}
	if s.fails.Load() {
		return Result{}, errors.New("broken")
	}
	return s.Memory.Take(ctx, req)
}

var oneToken = Limit{Capacity: 1, Interval: time.Hour}

func of(l Limit, keys ...string) Request {
	var req Request
	for _, key := range keys {
		req.Buckets = append(req.Buckets, Bucket{Key: key, Limit: l})
	}
	return req
}

func newTestFailover(s, fallback Store) (*Failover, *prometheus.Registry, *strings.Builder) {
	reg, log := prometheus.NewRegistry(), new(strings.Builder)
	return NewFailover(s, fallback, 1, reg, slog.New(slog.NewTextHandler(log, nil))), reg, log
}

func active(t *testing.T, reg *prometheus.Registry, want float64) {
	t.Helper()
	if got := metrictest.Value(t, reg, "refrakt_gate_fallback_active"); got != want {
		t.Errorf("refrakt_gate_fallback_active is %v, want %v", got, want)
	}
}

func TestFailoverStopsAskingAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &brokenStore{Memory: NewMemory()}
		f, reg, log := newTestFailover(store, NewMemory())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()

		store.fails.Store(true)
		for i := range 10 {
			r, err := f.Take(ctx, of(oneToken, "a"))
			if err != nil || !r.Fallback || r.Taken != (i == 0) {
				t.Fatalf("take %d with the store broken: %+v, %v", i, r, err)
			}
		}
		if n := store.asked.Load(); n != tripAfter {
			t.Errorf("the broken store was asked %d times, want %d", n, tripAfter)
		}
		active(t, reg, 1)

		time.Sleep(3 * probeInterval) // still broken
		active(t, reg, 1)
		store.fails.Store(false)
		time.Sleep(2 * probeInterval)
		active(t, reg, 0)
		if r, err := f.Take(ctx, of(oneToken, "a")); err != nil || r.Fallback || !r.Taken {
			t.Errorf("take with the store back: %+v, %v", r, err)
		}
		if lost, back := strings.Count(log.String(), "Redis lost"), strings.Count(log.String(), "Redis is back"); lost != 1 || back != 1 {
			t.Errorf("logged %d losses and %d returns, want one each:\n%s", lost, back, log)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestFailoverWaitsNoLongerThanTold has a store that hangs. The first callers wait until
// their deadline, later callers don't wait.
func TestFailoverWaitsNoLongerThanTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &brokenStore{Memory: NewMemory()}
		store.hangs.Store(true)
		f, _, _ := newTestFailover(store, NewMemory())
		for i := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			start := time.Now()
			if r, err := f.Take(ctx, of(oneToken, "a")); err != nil || !r.Fallback {
				t.Errorf("take %d: %+v, %v", i, r, err)
			}
			want := time.Duration(0)
			if i < tripAfter {
				want = 100 * time.Millisecond
			}
			if waited := time.Since(start); waited != want {
				t.Errorf("take %d waited %v, want %v", i, waited, want)
			}
			cancel()
		}
	})
}

// TestFailoverNoticesWithoutTraffic breaks the store while no request comes.
func TestFailoverNoticesWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &brokenStore{Memory: NewMemory()}
		f, reg, _ := newTestFailover(store, NewMemory())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = f.Run(ctx) }()
		store.fails.Store(true)
		time.Sleep((tripAfter + 1) * probeInterval)
		active(t, reg, 1)
		cancel()
		synctest.Wait()
	})
}

func TestFailoverWithoutFallback(t *testing.T) {
	store := &brokenStore{Memory: NewMemory()}
	store.fails.Store(true)
	f, _, _ := newTestFailover(store, nil)
	for range 5 {
		if _, err := f.Take(t.Context(), of(oneToken, "a")); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
	}
}

// TestFailoverIgnoresCallersThatLeave: a caller that cancels does not count against Redis,
// before or while it is asked. A caller whose time is up does.
func TestFailoverIgnoresCallersThatLeave(t *testing.T) {
	store := &brokenStore{Memory: NewMemory()}
	f, reg, _ := newTestFailover(store, NewMemory())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if r, err := f.Take(gone, of(oneToken, "a")); err != nil || !r.Fallback {
			t.Fatalf("take of a caller that left: %+v, %v; want an answer all the same", r, err)
		}
	}
	active(t, reg, 0)
	if store.asked.Load() != 0 {
		t.Error("the store was asked though the time was up")
	}
	store.hangs.Store(true)
	leaving, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if r, err := f.Take(leaving, of(oneToken, "a")); err != nil || !r.Fallback {
		t.Fatalf("take of a caller that leaves: %+v, %v", r, err)
	}
	counted := func(want float64) {
		t.Helper()
		for _, name := range []string{"refrakt_gate_fallback_total", "refrakt_gate_limiter_errors_total"} {
			if n := metrictest.Value(t, reg, name); n != want {
				t.Errorf("%s is %v, want %v", name, n, want)
			}
		}
	}
	counted(0)
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if r, err := f.Take(late, of(oneToken, "a")); err != nil || !r.Fallback {
		t.Fatalf("take of a caller whose time is up: %+v, %v", r, err)
	}
	counted(1)
}

func TestFailoverRefundsWhereItTook(t *testing.T) {
	store, fallback := &brokenStore{Memory: NewMemory()}, NewMemory()
	f, _, _ := newTestFailover(store, fallback)
	ctx := t.Context()
	for _, broken := range []bool{false, true} {
		store.fails.Store(broken)
		r, err := f.Take(ctx, of(oneToken, "a"))
		if err != nil || !r.Taken || r.Fallback != broken {
			t.Fatalf("take with broken=%v: %+v, %v", broken, r, err)
		}
		if err := f.Refund(ctx, r, of(oneToken, "a").Buckets); err != nil {
			t.Fatal(err)
		}
		if r, err := f.Take(ctx, of(oneToken, "a")); err != nil || !r.Taken {
			t.Errorf("take after the refund with broken=%v: %+v, %v", broken, r, err)
		}
	}
}

// TestFailoverRedisRestarted has a real Redis that dies and comes back.
func TestFailoverRedisRestarted(t *testing.T) {
	server := redistest.Start(t)
	f, _, _ := newTestFailover(NewRedis(server.Client(t), ""), NewMemory())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() { cancel(); <-done }()

	until := func(what string, cond func() bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for !cond() {
			select {
			case <-deadline:
				t.Fatalf("not within 20 s: %s", what)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if r, err := f.Take(ctx, of(oneToken, "a")); err != nil || !r.Taken || r.Fallback {
		t.Fatalf("take: %+v, %v", r, err)
	}
	server.Kill()
	until("degraded", f.Degraded)
	if r, err := f.Take(ctx, of(oneToken, "a")); err != nil || !r.Fallback {
		t.Fatalf("take while Redis is away: %+v, %v", r, err)
	}
	server.Restart()
	until("recovered", func() bool { return !f.Degraded() })
	if r, err := f.Take(ctx, of(oneToken, "b")); err != nil || !r.Taken || r.Fallback {
		t.Errorf("take with Redis back: %+v, %v", r, err)
	}
}
