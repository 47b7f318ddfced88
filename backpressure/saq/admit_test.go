package saq

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// longWindow outlasts any test, so that none depends on how fast it runs.
const longWindow = 30 * time.Second

const limit = 40

func newQueue(rdb Redis) *Queue { return New("default", rdb) }

// admits asks once.
func admits(t *testing.T, q *Queue, window time.Duration) bool {
	t.Helper()
	a, err := q.Admit(t.Context(), backpressure.Place{Limit: limit}, window)
	if err != nil {
		t.Fatal(err)
	}
	if a.Admitted != (a.Pending < limit) {
		t.Errorf("admitted: %v with %d jobs that wait or are on their way", a.Admitted, a.Pending)
	}
	return a.Admitted
}

// admitted asks n times and counts the admissions.
func admitted(t *testing.T, q *Queue, n int) int {
	t.Helper()
	count := 0
	for range n {
		if admits(t, q, longWindow) {
			count++
		}
	}
	return count
}

func TestAdmitConcurrently(t *testing.T) {
	t.Parallel()
	for name, replicas := range map[string]int{"one": 1, "three share the window": 3} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			var queues []*Queue
			for range replicas {
				queues = append(queues, newQueue(server.Client(t)))
			}
			var ok, full atomic.Int64
			var wg sync.WaitGroup
			for i := range 300 {
				wg.Go(func() {
					switch a, err := queues[i%replicas].Admit(t.Context(), backpressure.Place{Limit: limit}, longWindow); {
					case err != nil:
						t.Error(err)
					case a.Admitted:
						ok.Add(1)
					default:
						full.Add(1)
					}
				})
			}
			wg.Wait()
			if ok.Load() != limit || full.Load() != 300-limit {
				t.Errorf("%d admitted, %d full, want %d and %d", ok.Load(), full.Load(), limit, 300-limit)
			}
		})
	}
}

func TestAdmitCountsTheQueue(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := newQueue(rdb)

	fill(t, rdb, "default", 30)
	if got := admitted(t, q, 20); got != 10 {
		t.Fatalf("%d admitted to 30 jobs, want 10", got)
	}
	// The admitted become jobs: they are not counted twice, nor forgotten.
	fill(t, rdb, "default", 5)
	if got := admitted(t, q, 5); got != 0 {
		t.Errorf("%d admitted with 35 jobs and 5 to come, want 0", got)
	}
	fill(t, rdb, "default", 5)
	if got := admitted(t, q, 5); got != 0 {
		t.Errorf("%d admitted with 40 jobs, want 0", got)
	}
	// Jobs from elsewhere count as soon as they are there.
	fill(t, rdb, "default", 1000)
	if got := admitted(t, q, 5); got != 0 {
		t.Errorf("%d admitted with 1040 jobs, want 0", got)
	}
	// All are gone, and none of those to come then was seen to arrive: the window is what still holds 10 places.
	rdb.Del(t.Context(), q.queuedKey())
	if got := admitted(t, q, 50); got != 30 {
		t.Errorf("%d admitted within the window, want 30", got)
	}
	shiftWindow(t, rdb, -2*longWindow)
	if got := admitted(t, q, 50); got != 40 {
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
			q := newQueue(rdb)
			if got := admitted(t, q, 25); got != 25 {
				t.Fatalf("%d admitted at first, want 25", got)
			}
			shiftWindow(t, rdb, tc.shift)
			if got := admitted(t, q, 60); got != tc.want {
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
	q := newQueue(rdb)
	for i, want := range []int{25, 15, 25, 15, 25} {
		n := 60
		if i == 0 {
			n = 25
		}
		if got := admitted(t, q, n); got != want {
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
	q := newQueue(rdb)
	if got := admitted(t, q, 1); got != 1 {
		t.Fatalf("%d admitted at first, want 1", got)
	}
	shiftWindow(t, rdb, -longWindow)
	fill(t, rdb, "default", 30)
	if got := admitted(t, q, 5); got != 5 {
		t.Fatalf("%d admitted to 30 jobs, want 5", got)
	}
	if got := admitted(t, q, 60); got != 5 {
		t.Errorf("%d more admitted to 30 jobs and 5 to come, want 5", got)
	}
	shiftWindow(t, rdb, -2*longWindow)
	if got := admitted(t, q, 1); got != 1 {
		t.Fatalf("%d admitted to 30 jobs, want 1", got)
	}
	fill(t, rdb, "default", 10)
	if got := admitted(t, q, 5); got != 0 {
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
				saq := newQueue(q.rdb)
				random := rand.New(rand.NewPCG(seed, 7))
				flight, refused, careful := 0, 0, 0
				// Phases in which workers take none, about as many as come, and more.
				for step := range 4000 {
					takes := []int{0, 1, 4}[step/400%3]
					switch n := random.IntN(100); {
					case n < 35:
						depth := q.depth()
						full := depth+flight >= limit
						if admits(t, saq, longWindow) {
							if full {
								t.Fatalf("step %d: admitted with %d jobs and %d to come", step, depth, flight)
							}
							flight++
						} else {
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

func (q *playedQueue) depth() int {
	return int(q.rdb.LLen(q.t.Context(), newQueue(nil).queuedKey()).Val())
}

// job makes a job of which more is said than that it waits.
func (q *playedQueue) job(more string) string {
	q.jobs++
	id := fmt.Sprint("saq:job:default:", q.jobs)
	q.put(id, more)
	must(q.t, q.rdb.ZAdd(q.t.Context(), newQueue(nil).incompleteKey(), redis.Z{Member: id}).Err())
	return id
}

func (q *playedQueue) put(id, more string) {
	must(q.t, q.rdb.Set(q.t.Context(), id, `{"queue": "default", "status": "queued", "queued": 1`+more+`}`, 0).Err())
}

func (q *playedQueue) push(id string) {
	must(q.t, q.rdb.RPush(q.t.Context(), newQueue(nil).queuedKey(), id).Err())
}

func (q *playedQueue) enqueue() { q.push(q.job("")) }

// take moves a job to the workers, if one waits.
func (q *playedQueue) take() {
	q.rdb.LMove(q.t.Context(), newQueue(nil).queuedKey(), newQueue(nil).activeKey(), "LEFT", "RIGHT")
}

// held takes the job away from the workers that was taken last, empty if there is none.
func (q *playedQueue) held() string {
	return q.rdb.RPop(q.t.Context(), newQueue(nil).activeKey()).Val()
}

// giveBack is a retry at once, delay one that waits for its time.
func (q *playedQueue) giveBack() {
	if id := q.held(); id != "" {
		q.put(id, `, "attempts": 1, "touched": 2`)
		q.push(id)
	}
}

func (q *playedQueue) delay() {
	if id := q.held(); id != "" {
		q.put(id, `, "attempts": 1, "touched": 2`)
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
		must(q.t, q.rdb.ZRem(q.t.Context(), newQueue(nil).incompleteKey(), id).Err())
	}
}

func (q *playedQueue) abort(i int) {
	if id, err := q.rdb.LIndex(q.t.Context(), newQueue(nil).queuedKey(), int64(i)).Result(); err == nil {
		must(q.t, q.rdb.LRem(q.t.Context(), newQueue(nil).queuedKey(), 1, id).Err())
		must(q.t, q.rdb.ZRem(q.t.Context(), newQueue(nil).incompleteKey(), id).Err())
	}
}

func TestAdmitRefusalWritesNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := newQueue(rdb)
	admitted(t, q, 40)
	shiftWindow(t, rdb, -longWindow)
	before := rdb.HGetAll(t.Context(), newQueue(nil).windowKey()).Val()
	if got := admitted(t, q, 10); got != 0 {
		t.Fatalf("%d admitted, want 0", got)
	}
	if after := rdb.HGetAll(t.Context(), newQueue(nil).windowKey()).Val(); fmt.Sprint(after) != fmt.Sprint(before) || len(after) == 0 {
		t.Errorf("window %v, want it as before: %v", after, before)
	}
}

func TestAdmitWindowExpires(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := newQueue(rdb)
	const window = 40 * time.Millisecond
	begin := time.Now()
	for admits(t, q, window) {
	}
	polltest.True(t, "admitted again", func() bool { return admits(t, q, window) })
	if passed := time.Since(begin); passed < window {
		t.Errorf("admitted again after %s, before the window was over", passed)
	}
	polltest.True(t, "window gone", func() bool {
		return rdb.Exists(t.Context(), q.windowKey()).Val() == 0
	})
}

func TestAdmitBrokenWindow(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	rdb.HSet(t.Context(), newQueue(nil).windowKey(), "start", "soon", "base", 100, "count", 100)
	q := newQueue(rdb)
	if got := admitted(t, q, 60); got != 40 {
		t.Errorf("%d admitted, want 40", got)
	}
}

// shiftWindow moves the window's beginning, as if the clock had been moved the
// other way.
func shiftWindow(t *testing.T, rdb *redis.Client, by time.Duration) {
	t.Helper()
	if err := rdb.HIncrBy(t.Context(), newQueue(nil).windowKey(), "start", by.Milliseconds()).Err(); err != nil {
		t.Fatalf("shift window: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
