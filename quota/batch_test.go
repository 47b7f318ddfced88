package quota

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// held is a batcher whose calls wait until they are let go, and that notes its batches.
type held struct {
	batcher

	batches chan []string // the keys of each call, when it begins
	goOn    chan error    // one value ends a call
}

func newHeld() *held {
	h := &held{batches: make(chan []string, 100), goOn: make(chan error)}
	h.send = func(ctx context.Context, batch []*member) {
		var keys []string
		for _, m := range batch {
			keys = append(keys, m.req.Buckets[0].Key)
		}
		h.batches <- keys
		var err error
		select {
		case err = <-h.goOn:
		case <-ctx.Done():
			err = ctx.Err()
		}
		for _, m := range batch {
			m.result, m.err = Result{Taken: err == nil, Limit: oneToken, Pending: int64(len(batch))}, err
		}
	}
	return h
}

// TestBatches: an idle batcher sends at once. Requests that come during a call go together
// after it, in order, and no more of them than maxBatch.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeld()
		var taking sync.WaitGroup
		var want []string
		ask := func(key string) {
			taking.Go(func() {
				if r, err := h.take(t.Context(), of(oneToken, key)); err != nil || !r.Taken {
					t.Errorf("%s: %+v, %v", key, r, err)
				}
			})
			synctest.Wait()
		}
		for round := range 3 {
			ask("first")
			if got := <-h.batches; !slices.Equal(got, []string{"first"}) {
				t.Fatalf("round %d: an idle batcher sent %v", round, got)
			}
			want = want[:0]
			for i := range maxBatch + 3 {
				want = append(want, fmt.Sprint(i))
				ask(want[i])
			}
			if len(h.batches) > 0 {
				t.Fatalf("round %d: a second call during the first", round)
			}
			h.goOn <- nil
			if got := <-h.batches; !slices.Equal(got, want[:maxBatch]) {
				t.Errorf("round %d: sent %v, want %v", round, got, want[:maxBatch])
			}
			h.goOn <- nil
			if got := <-h.batches; !slices.Equal(got, want[maxBatch:]) {
				t.Errorf("round %d: sent %v, want %v", round, got, want[maxBatch:])
			}
			h.goOn <- nil
			taking.Wait()
			synctest.Wait()
		}
	})
}

// TestBatchMembersKeepTheirDeadlines: each waits for its own time, whether it waits for a
// call under way or is part of it. One that has left or was canceled is not sent.
func TestBatchMembersKeepTheirDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeld()
		begin := time.Now()
		var taking sync.WaitGroup
		ask := func(key string, ctx context.Context, want error, after time.Duration) {
			taking.Go(func() {
				_, err := h.take(ctx, of(oneToken, key))
				if took := time.Since(begin); !errors.Is(err, want) || took != after {
					t.Errorf("%s: %v after %v, want %v after %v", key, err, took, want, after)
				}
			})
			synctest.Wait()
		}
		until := func(d time.Duration) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			t.Cleanup(cancel)
			return ctx
		}
		canceled, cancel := context.WithCancel(until(time.Minute))
		ask("first", until(100*time.Millisecond), context.DeadlineExceeded, 100*time.Millisecond)
		ask("short", until(50*time.Millisecond), context.DeadlineExceeded, 50*time.Millisecond)
		ask("canceled", canceled, context.Canceled, 100*time.Millisecond)
		ask("long", until(200*time.Millisecond), context.DeadlineExceeded, 200*time.Millisecond)
		ask("longer", until(300*time.Millisecond), nil, 250*time.Millisecond)
		<-h.batches
		time.Sleep(60 * time.Millisecond)
		cancel()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if got := <-h.batches; !slices.Equal(got, []string{"long", "longer"}) {
			t.Errorf("after the first call %v was sent", got)
		}
		time.Sleep(250*time.Millisecond - time.Since(begin))
		h.goOn <- nil
		taking.Wait()
	})
}

// TestBatchFails: a call that fails or panics fails its members, and the next one is made
// all the same.
func TestBatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeld()
		broken := errors.New("broken")
		send := h.send
		h.send = func(ctx context.Context, batch []*member) {
			send(ctx, batch)
			if batch[0].err != nil && strings.HasPrefix(batch[0].req.Buckets[0].Key, "panic") {
				panic("boom")
			}
		}
		var taking sync.WaitGroup
		outcome := make(map[string]error)
		var mu sync.Mutex
		ask := func(keys ...string) {
			for _, key := range keys {
				taking.Go(func() {
					_, err := h.take(t.Context(), of(oneToken, key))
					mu.Lock()
					defer mu.Unlock()
					outcome[key] = err
				})
				synctest.Wait()
			}
		}
		ask("first", "a", "b")
		h.goOn <- nil
		synctest.Wait()
		ask("panic1", "panic2")
		h.goOn <- broken // a, b
		synctest.Wait()
		ask("c")
		h.goOn <- broken // panic1, panic2
		h.goOn <- nil
		taking.Wait()
		for key, want := range map[string]string{"first": "", "a": "broken", "b": "broken", "panic1": "panic: boom", "panic2": "panic: boom", "c": ""} {
			if err := outcome[key]; (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", key, err, want)
			}
		}
		// A panic of the first call is its caller's, who recovers; the next goes on.
		func() {
			defer func() { _ = recover() }()
			go func() { h.goOn <- broken }()
			_, err := h.take(t.Context(), of(oneToken, "panic3"))
			t.Errorf("no panic: %v", err)
		}()
		go func() { h.goOn <- nil }()
		if _, err := h.take(t.Context(), of(oneToken, "d")); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	})
}

// TestBatchIsOneFailure: a connection that breaks under a batch is one failure, not one for
// each of its members, so it does not open the breaker.
func TestBatchIsOneFailure(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	if _, err := NewRedis(rdb, "").Take(t.Context(), of(oneToken, "first")); err != nil { // Redis knows the script then
		t.Fatal(err)
	}
	broken := &breaks{Client: rdb, held: make(chan struct{})}
	f, reg, _ := newTestFailover(NewRedis(broken, ""), NewMemoryOf(100))
	var asking sync.WaitGroup
	for i := range 10 {
		asking.Go(func() { _, _ = f.Take(context.WithoutCancel(t.Context()), of(oneToken, fmt.Sprint("ip", i))) })
	}
	polltest.True(t, "a batch that waits", func() bool {
		b := &f.store.(*guardedStore).store.(*Redis).batcher
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.waiting) == 9
	})
	broken.fails.Store(1) // the batch
	close(broken.held)
	asking.Wait()
	active(t, reg, 0)
	if n := metrictest.Value(t, reg, "refrakt_gate_fallback_total"); n != 9 {
		t.Errorf("%v requests were decided without Redis, want the 9 of the batch", n)
	}
	if r, err := f.Take(t.Context(), of(oneToken, "next")); err != nil || r.Fallback {
		t.Errorf("the next request: %+v, %v", r, err)
	}
}

// breaks is a client whose calls wait until held is closed, and of which the second fails.
type breaks struct {
	Client

	held  chan struct{}
	calls atomic.Int64
	fails atomic.Int64 // the index of the call that fails
}

func (b *breaks) Process(ctx context.Context, cmd redis.Cmder) error {
	n := b.calls.Add(1) - 1
	<-b.held
	if at := b.fails.Load(); at > 0 && n == at {
		cmd.SetErr(io.EOF)
		return io.EOF
	}
	return b.Client.Process(ctx, cmd)
}

// FuzzBatch: a batch is what its requests would be one after the other, on one server and
// on a server of a cluster, where each has a call of its own. Each byte is one request.
func FuzzBatch(f *testing.F) {
	f.Add([]byte("one after the other, or together"))
	random := rand.New(rand.NewPCG(2, 0))
	for range 30 {
		ops := make([]byte, 1+random.IntN(maxBatch))
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		f.Add(ops)
	}
	server := redistest.Start(f)
	databases := make([]*redis.Client, 3)
	for i := range databases {
		databases[i] = server.ClientOf(f, i)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		ops = ops[:min(len(ops), maxBatch)]
		if err := databases[0].FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		limits := []Limit{{1, time.Hour}, {3, time.Hour}, {4, 2 * time.Hour}}
		var alone, together, apart []*member
		for _, op := range ops {
			req := of(limits[op%3], fmt.Sprint("ip", op>>2&3))
			if op&16 != 0 {
				req.Buckets = append(req.Buckets, Bucket{Key: fmt.Sprint("user", op>>5), Limit: limits[op>>5%3], MaxDebt: 9 * time.Hour})
			}
			alone, together, apart = append(alone, &member{req: req}), append(together, &member{req: req}), append(apart, &member{req: req})
		}
		for i := range alone {
			NewRedis(databases[0], "").send(t.Context(), alone[i:i+1])
		}
		NewRedis(databases[1], "").send(t.Context(), together)
		newClusterServer(databases[2]).send(t.Context(), apart)
		for i, one := range alone {
			for _, other := range []*member{together[i], apart[i]} {
				if one.err != nil || other.err != nil {
					t.Fatalf("request %d: %v, %v", i, one.err, other.err)
				}
				if r, s := one.result, other.result; differ(r, s) {
					t.Errorf("request %d, %+v: alone %+v, in a batch %+v", i, one.req, r, s)
				}
			}
		}
		for _, rdb := range databases[1:] {
			wantSameKeys(t, databases[0], rdb)
		}
	})
}

// wantSameKeys compares the buckets of two databases.
func wantSameKeys(t *testing.T, a, b *redis.Client) {
	t.Helper()
	keys := a.Keys(t.Context(), "*").Val()
	if others := b.Keys(t.Context(), "*").Val(); len(keys) != len(others) {
		t.Errorf("keys %v and %v", keys, others)
	}
	for _, key := range keys {
		full, err := a.Get(t.Context(), key).Int64()
		other, err2 := b.Get(t.Context(), key).Int64()
		if d := time.Duration(full - other); err != nil || err2 != nil || d.Abs() > maxStall {
			t.Errorf("%s: %v apart, %v, %v", key, d, err, err2)
		}
	}
}

// TestBatchedConcurrently has many callers ask a real Redis at once: calls are shared, and
// no bucket gives more or less than it has.
func TestBatchedConcurrently(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	store := NewRedis(rdb, "")
	const callers, asks = 50, 40
	limit := Limit{Capacity: 30, Interval: time.Hour}
	taken := make([]int64, callers)
	var asking sync.WaitGroup
	for i := range callers {
		for range 2 {
			asking.Go(func() {
				for range asks / 2 {
					r, err := store.Take(context.WithoutCancel(t.Context()), of(limit, fmt.Sprint("ip", i), fmt.Sprint("user", i)))
					if err != nil {
						t.Errorf("take: %v", err)
					} else if r.Taken {
						atomic.AddInt64(&taken[i], 1)
					}
				}
			})
		}
	}
	asking.Wait()
	for i, n := range taken {
		if n != limit.Capacity {
			t.Errorf("caller %d got %d tokens, want %d", i, n, limit.Capacity)
		}
	}
	var calls, usec int64
	info := rdb.Info(t.Context(), "commandstats").Val()
	for line := range strings.SplitSeq(info, "\r\n") {
		if text, ok := strings.CutPrefix(line, "cmdstat_evalsha:"); ok {
			if _, err := fmt.Sscanf(text, "calls=%d,usec=%d", &calls, &usec); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d takes in %d calls", callers*asks, calls)
	if calls == 0 || calls > callers*asks/4 {
		t.Errorf("%d calls for %d takes of %d callers at once", calls, callers*asks, 2*callers)
	}
}

// TestRunOf: requests are one run only if they differ in keys and callers alone.
func TestRunOf(t *testing.T) {
	queue := &Queue{}
	base := Request{Buckets: []Bucket{{Key: "a", Limit: oneToken, MaxDebt: time.Hour}}, Place: Place{Mode: PlaceRequired, Queue: queue, Limit: 40, Share: 1, Caller: "a"}}
	for what, tt := range map[string]struct {
		change func(*Request)
		runs   int
	}{
		"another key":       {func(r *Request) { r.Buckets[0].Key = "b" }, 2},
		"another caller":    {func(r *Request) { r.Place.Caller = "b" }, 2},
		"another limit":     {func(r *Request) { r.Buckets[0].Limit.Capacity++ }, 1},
		"another most":      {func(r *Request) { r.Buckets[0].MaxDebt++ }, 1},
		"one bucket more":   {func(r *Request) { r.Buckets = append(r.Buckets, r.Buckets[0]) }, 1},
		"recorded":          {func(r *Request) { r.Recorded = true }, 1},
		"another mode":      {func(r *Request) { r.Place.Mode = PlaceIfKnown }, 1},
		"another queue":     {func(r *Request) { r.Place.Queue = &Queue{} }, 1},
		"another threshold": {func(r *Request) { r.Place.Limit++ }, 1},
		"another share":     {func(r *Request) { r.Place.Share++ }, 1},
	} {
		other := base
		other.Buckets = slices.Clone(base.Buckets)
		tt.change(&other)
		if got := runOf([]*member{{req: base}, {req: other}}); got != tt.runs {
			t.Errorf("%s: a run of %d, want %d", what, got, tt.runs)
		}
	}
}
