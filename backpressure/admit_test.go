package backpressure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// longWindow outlasts any test, so that none depends on how fast it runs.
const longWindow = 30 * time.Second

func admissionConfig() Config {
	cfg := validConfig()
	cfg.AdmissionWindow = longWindow
	return cfg
}

func newTestMonitor(cfg Config, rdb Redis) *Monitor {
	return NewMonitor(cfg, rdb, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
}

// admitted asks n times and counts the admissions; any state but ok and full fails.
func admitted(t *testing.T, m *Monitor, n int) int {
	t.Helper()
	var count int
	for range n {
		switch v := m.Admit(t.Context(), "ann"); v.State {
		case StateOK:
			count++
			if v.RetryAfter != nil {
				t.Errorf("admitted with RetryAfter %s", v.RetryAfter())
			}
		case StateFull:
			if wait := v.RetryAfter(); wait < m.cfg.RetryDelay {
				t.Errorf("full with RetryAfter %s", wait)
			}
		default:
			t.Fatalf("state %s", v.State)
		}
	}
	return count
}

func TestAdmitConcurrently(t *testing.T) {
	t.Parallel()
	for name, replicas := range map[string]int{"one": 1, "three share the window": 3} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			var monitors []*Monitor
			for range replicas {
				monitors = append(monitors, newTestMonitor(admissionConfig(), server.Client(t)))
			}
			var ok, full, other atomic.Int64
			var wg sync.WaitGroup
			for i := range 300 {
				wg.Go(func() {
					switch monitors[i%replicas].Admit(t.Context(), "ann").State {
					case StateOK:
						ok.Add(1)
					case StateFull:
						full.Add(1)
					default:
						other.Add(1)
					}
				})
			}
			wg.Wait()
			if ok.Load() != 40 || full.Load() != 260 || other.Load() != 0 {
				t.Errorf("%d admitted, %d full, %d other, want 40, 260, 0", ok.Load(), full.Load(), other.Load())
			}
		})
	}
}

func TestAdmitCountsTheQueue(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	m := newTestMonitor(admissionConfig(), rdb)
	queue := queuedKey("default")

	fill(t, rdb, "default", 30)
	if got := admitted(t, m, 20); got != 10 {
		t.Fatalf("%d admitted to 30 jobs, want 10", got)
	}
	// The admitted become jobs: they are not counted twice, nor forgotten.
	fill(t, rdb, "default", 5)
	if got := admitted(t, m, 5); got != 0 {
		t.Errorf("%d admitted with 35 jobs and 5 to come, want 0", got)
	}
	fill(t, rdb, "default", 5)
	if got := admitted(t, m, 5); got != 0 {
		t.Errorf("%d admitted with 40 jobs, want 0", got)
	}
	// Jobs from elsewhere count as soon as they are there.
	fill(t, rdb, "default", 1000)
	if got := admitted(t, m, 5); got != 0 {
		t.Errorf("%d admitted with 1040 jobs, want 0", got)
	}
	// All are gone, and none of those to come then was seen to arrive: the window is what still holds 10 places.
	rdb.Del(t.Context(), queue)
	if got := admitted(t, m, 50); got != 30 {
		t.Errorf("%d admitted within the window, want 30", got)
	}
	shiftWindow(t, rdb, -2*longWindow)
	if got := admitted(t, m, 50); got != 40 {
		t.Errorf("%d admitted to an empty queue, want 40", got)
	}
}

func TestAdmitWindow(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		shift time.Duration
		want  int // further admissions, of 25 before
	}{
		"within":               {0, 15},
		"just within":          {-longWindow / 2, 15},
		"one window old":       {-longWindow, 15},
		"nearly two":           {-2*longWindow + longWindow/2, 15},
		"two windows old":      {-2 * longWindow, 40},
		"long ago":             {-100 * longWindow, 40},
		"clock set back":       {time.Hour, 40},
		"clock set back a lot": {100 * 365 * 24 * time.Hour, 40},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			rdb := redistest.Start(t).Client(t)
			m := newTestMonitor(admissionConfig(), rdb)
			if got := admitted(t, m, 25); got != 25 {
				t.Fatalf("%d admitted at first, want 25", got)
			}
			shiftWindow(t, rdb, tc.shift)
			if got := admitted(t, m, 60); got != tc.want {
				t.Errorf("%d admitted, want %d", got, tc.want)
			}
		})
	}
}

// TestAdmitGenerations: what was admitted is forgotten one generation after the
// other.
func TestAdmitGenerations(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	m := newTestMonitor(admissionConfig(), rdb)
	for i, want := range []int{25, 15, 25, 15, 25} {
		n := 60
		if i == 0 {
			n = 25
		}
		if got := admitted(t, m, n); got != want {
			t.Errorf("generation %d: %d admitted, want %d", i, got, want)
		}
		shiftWindow(t, rdb, -longWindow)
	}
}

// TestAdmitBesideOthers: jobs that come past the gate take room too, whether
// before the generation began or after.
func TestAdmitBesideOthers(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	m := newTestMonitor(admissionConfig(), rdb)
	if got := admitted(t, m, 1); got != 1 {
		t.Fatalf("%d admitted at first, want 1", got)
	}
	shiftWindow(t, rdb, -longWindow)
	fill(t, rdb, "default", 30)
	if got := admitted(t, m, 5); got != 5 {
		t.Fatalf("%d admitted to 30 jobs, want 5", got)
	}
	if got := admitted(t, m, 60); got != 5 {
		t.Errorf("%d more admitted to 30 jobs and 5 to come, want 5", got)
	}
	shiftWindow(t, rdb, -2*longWindow)
	if got := admitted(t, m, 1); got != 1 {
		t.Fatalf("%d admitted to 30 jobs, want 1", got)
	}
	fill(t, rdb, "default", 10)
	if got := admitted(t, m, 5); got != 0 {
		t.Errorf("%d admitted to 40 jobs, want 0", got)
	}
}

// TestAdmitIsExact plays requests that take their time to become jobs, workers
// that take jobs, give them back and end them, and jobs that are aborted while
// they wait, at random. Nothing is ever admitted over the limit. As long as jobs
// are only taken, nothing is refused below it.
func TestAdmitIsExact(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ends, retries, later, aborts bool }{
		"long jobs":         {},
		"jobs that retry":   {retries: true},
		"delayed and timed": {later: true, retries: true},
		"quick jobs":        {ends: true},
		"all, with aborts":  {ends: true, retries: true, later: true, aborts: true},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) {
				t.Parallel()
				q := &playedQueue{t: t, rdb: redistest.Start(t).Client(t)}
				m := newTestMonitor(admissionConfig(), q.rdb)
				random := rand.New(rand.NewPCG(seed, 7))
				flight, refused, careful := 0, 0, 0
				// Phases in which workers take none, about as many as come, and more.
				for step := range 4000 {
					takes := []int{0, 1, 4}[step/400%3]
					switch n := random.IntN(100); {
					case n < 35:
						depth := q.depth()
						full := depth+flight >= m.cfg.MaxPending
						switch m.Admit(t.Context(), "ann").State {
						case StateOK:
							if full {
								t.Fatalf("step %d: admitted with %d jobs and %d to come", step, depth, flight)
							}
							flight++
						case StateFull:
							refused++
							if !full {
								careful++
							}
						}
					case n < 36 && flight == 0:
						q.enqueue() // past the gate: hides nothing while nothing is to come
					case n < 67:
						if flight > 0 {
							flight--
							q.enqueue()
						}
					case n < 70:
						if c.aborts {
							q.abort(random.IntN(max(1, q.depth())))
						}
					default:
						if c.later && random.IntN(4) == 0 {
							q.schedule()
						}
						if c.later && random.IntN(2) == 0 {
							q.due()
						}
						for range takes {
							q.take()
							if c.later && random.IntN(3) == 0 {
								q.delay()
							} else if c.retries && random.IntN(3) == 0 {
								q.giveBack()
							} else if c.ends {
								q.end()
							}
						}
					}
				}
				if refused == 0 || q.jobs < 100 {
					t.Errorf("%d refusals, %d jobs: nothing was put to the test", refused, q.jobs)
				}
				if careful > 0 && name == "long jobs" {
					t.Errorf("%d of %d refusals were below the limit", careful, refused)
				}
				t.Logf("%d jobs, %d refused, %d of them below the limit", q.jobs, refused, careful)
			})
		}
	}
}

// playedQueue is a queue as SAQ has it, less what admission does not look at.
type playedQueue struct {
	t     *testing.T
	rdb   *redis.Client
	jobs  int
	later []string // jobs that are in no list until they are due
}

func (q *playedQueue) depth() int { return int(q.rdb.LLen(q.t.Context(), queuedKey("default")).Val()) }

// job makes a job of which more is said than that it waits.
func (q *playedQueue) job(more string) string {
	q.jobs++
	id := fmt.Sprint(jobPrefix("default"), q.jobs)
	q.put(id, more)
	must(q.t, q.rdb.ZAdd(q.t.Context(), incompleteKey("default"), redis.Z{Member: id}).Err())
	return id
}

func (q *playedQueue) put(id, more string) {
	must(q.t, q.rdb.Set(q.t.Context(), id, `{"queue": "default", "status": "queued", "queued": 1`+more+`}`, 0).Err())
}

func (q *playedQueue) push(id string) {
	must(q.t, q.rdb.RPush(q.t.Context(), queuedKey("default"), id).Err())
}

func (q *playedQueue) enqueue() { q.push(q.job("")) }

// take moves a job to the workers, if one waits.
func (q *playedQueue) take() {
	q.rdb.LMove(q.t.Context(), queuedKey("default"), activeKey("default"), "LEFT", "RIGHT")
}

// held takes the job away from the workers that was taken last, empty if there is none.
func (q *playedQueue) held() string {
	return q.rdb.RPop(q.t.Context(), activeKey("default")).Val()
}

// giveBack is a retry at once, delay one that waits for its time.
func (q *playedQueue) giveBack() {
	if id := q.held(); id != "" {
		q.put(id, `, "attempts": 1`)
		q.push(id)
	}
}

func (q *playedQueue) delay() {
	if id := q.held(); id != "" {
		q.put(id, `, "attempts": 1`)
		q.later = append(q.later, id)
	}
}

func (q *playedQueue) schedule() { q.later = append(q.later, q.job(`, "scheduled": 2`)) }

// due gives the first of those that wait for their time to the list.
func (q *playedQueue) due() {
	if len(q.later) > 0 {
		q.push(q.later[0])
		q.later = q.later[1:]
	}
}

func (q *playedQueue) end() {
	if id := q.held(); id != "" {
		must(q.t, q.rdb.ZRem(q.t.Context(), incompleteKey("default"), id).Err())
	}
}

func (q *playedQueue) abort(i int) {
	if id, err := q.rdb.LIndex(q.t.Context(), queuedKey("default"), int64(i)).Result(); err == nil {
		must(q.t, q.rdb.LRem(q.t.Context(), queuedKey("default"), 1, id).Err())
		must(q.t, q.rdb.ZRem(q.t.Context(), incompleteKey("default"), id).Err())
	}
}

func TestAdmitRefusalWritesNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	m := newTestMonitor(admissionConfig(), rdb)
	admitted(t, m, 40)
	shiftWindow(t, rdb, -longWindow)
	before := rdb.HGetAll(t.Context(), windowKey("default")).Val()
	if got := admitted(t, m, 10); got != 0 {
		t.Fatalf("%d admitted, want 0", got)
	}
	if after := rdb.HGetAll(t.Context(), windowKey("default")).Val(); fmt.Sprint(after) != fmt.Sprint(before) || len(after) == 0 {
		t.Errorf("window %v, want it as before: %v", after, before)
	}
}

func TestAdmitWindowExpires(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	cfg := validConfig()
	cfg.AdmissionWindow = 40 * time.Millisecond
	m := newTestMonitor(cfg, rdb)
	begin := time.Now()
	for m.Admit(t.Context(), "ann").State == StateOK {
	}
	eventually(t, "admitted again", func() bool { return m.Admit(t.Context(), "ann").State == StateOK })
	if passed := time.Since(begin); passed < cfg.AdmissionWindow {
		t.Errorf("admitted again after %s, before the window was over", passed)
	}
	eventually(t, "window gone", func() bool {
		return rdb.Exists(t.Context(), windowKey("default")).Val() == 0
	})
}

func TestAdmitBrokenWindow(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	rdb.HSet(t.Context(), windowKey("default"), "start", "soon", "base", 100, "count", 100)
	m := newTestMonitor(admissionConfig(), rdb)
	if got := admitted(t, m, 60); got != 40 {
		t.Errorf("%d admitted, want 40", got)
	}
}

func TestAdmitDeepQueue(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	fill(t, rdb, "default", 100_000)
	m := newTestMonitor(admissionConfig(), rdb)
	if v := m.Admit(t.Context(), "ann"); v.State != StateFull {
		t.Errorf("state %s, want full", v.State)
	}
	// 99,961 jobs have to go at 1000/s: some 100 s, where the rate is known.
	m.newest.Store(&snapshot{at: time.Now(), flow: flow{perSecond: 1000, jobs: 1e9}})
	if wait := m.Admit(t.Context(), "ann").RetryAfter(); wait < 100*time.Second || wait > 120*time.Second {
		t.Errorf("RetryAfter %s, want 100 s and up to a fifth more", wait)
	}
	m.newest.Store(&snapshot{at: time.Now().Add(-time.Hour), flow: flow{perSecond: 1000, jobs: 1e9}})
	if wait := m.Admit(t.Context(), "bob").RetryAfter(); wait < 30*time.Second || wait > 36*time.Second {
		t.Errorf("RetryAfter %s by a stale rate, want 30 s and up to a fifth more", wait)
	}
}

func TestAdmitWithoutLimit(t *testing.T) {
	t.Parallel()
	cfg := validConfig()
	cfg.MaxPending = 0
	m := newTestMonitor(cfg, nil) // a nil client: asking would panic
	if v := m.Admit(t.Context(), "ann"); v.State != StateOK || v.RetryAfter != nil {
		t.Errorf("state %s, want ok", v.State)
	}
}

func TestAdmitFailure(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	rdb.Set(t.Context(), windowKey("default"), "not a hash", 0)
	m := newTestMonitor(validConfig(), rdb)
	v := m.Admit(t.Context(), "ann")
	if wait := v.RetryAfter(); v.State != StateUnknown || wait < 30*time.Second || wait > 36*time.Second {
		t.Errorf("%s for %s, want unknown for 30 s and up to a fifth more", v.State, wait)
	}
	wantCounter(t, m.metrics.admitErrors, 1)
	wantCounter(t, m.metrics.sampleErrors, 0)
}

// TestAdmitUnaskedRemembersFull: while Redis can't be asked a queue that was full
// when last seen stays closed, until that sample is too old; one that had room is
// unknown, for nobody counts who is let in.
func TestAdmitUnaskedRemembersFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: reading{pending: 40, ageKnown: true}}
		m := newTestMonitor(validConfig(), nil)
		m.read = f.read
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		want := func(want State) {
			t.Helper()
			if v := m.Admit(gone, "ann"); v.State != want || v.RetryAfter() == 0 {
				t.Errorf("%s, want %s", v.State, want)
			}
		}
		must(t, m.Sample(t.Context()))
		want(StateFull)
		after(m.cfg.StaleAfter + 1)
		want(StateUnknown)
		f.set(reading{pending: 39, ageKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want(StateFull) // not yet a tenth fewer
		f.set(reading{pending: 30, ageKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want(StateUnknown)
	})
}

// TestAdmitCallerGone: callers that leave don't open the circuit for the others.
func TestAdmitCallerGone(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	m := newTestMonitor(validConfig(), rdb)
	for name, leave := range map[string]func(context.CancelFunc) Redis{
		"before": func(cancel context.CancelFunc) Redis { cancel(); return rdb },
		"midway": func(cancel context.CancelFunc) Redis { return leaver{rdb, cancel} },
	} {
		for range 2 * circuitFailures {
			ctx, cancel := context.WithCancel(t.Context())
			m.rdb = leave(cancel)
			if v := m.Admit(ctx, "ann"); v.State != StateUnknown {
				t.Errorf("%s: state %s, want unknown", name, v.State)
			}
			cancel()
		}
		m.rdb = rdb
		if v := m.Admit(t.Context(), "ann"); v.State != StateOK {
			t.Errorf("%s: state %s for the next caller, want ok", name, v.State)
		}
	}
	for range 2 * circuitFailures { // no time left when they came
		ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
		m.Admit(ctx, "ann")
		cancel()
	}
	if !m.circuit.closed() {
		t.Error("circuit opened by callers without time")
	}
	wantCounter(t, m.metrics.admitErrors, 0)
}

// TestAdmitLeavesTheProbeToSamples: no request is the one to find out whether
// Redis is back.
func TestAdmitLeavesTheProbeToSamples(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newTestMonitor(validConfig(), nil) // a nil client: asking would panic
		m.read = (&fakeQueue{err: errors.New("connection refused")}).read
		for range circuitFailures {
			if !m.circuit.closed() {
				t.Fatal("circuit open too early")
			}
			if err := m.Sample(t.Context()); err == nil {
				t.Fatal("no error of a failed sample")
			}
		}
		for _, pause := range []time.Duration{0, 2 * circuitTimeout} {
			after(pause)
			if v := m.Admit(t.Context(), "ann"); v.State != StateUnknown {
				t.Errorf("state %s, want unknown", v.State)
			}
		}
	})
}

// leaver is a client whose caller leaves while the script runs; the client
// blames the connection.
type leaver struct {
	Redis
	cancel context.CancelFunc
}

func (l leaver) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	l.cancel()
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(redis.ErrClosed)
	return cmd
}

// shiftWindow moves the window's beginning, as if the clock had been moved the
// other way.
func shiftWindow(t *testing.T, rdb *redis.Client, by time.Duration) {
	t.Helper()
	if err := rdb.HIncrBy(t.Context(), windowKey("default"), "start", by.Milliseconds()).Err(); err != nil {
		t.Fatalf("shift window: %v", err)
	}
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for !ask() {
		if time.Now().After(deadline) {
			t.Fatalf("not %s in time", what)
		}
		<-tick.C
	}
}
