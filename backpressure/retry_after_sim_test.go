package backpressure

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// drainedQueue simulates the counts of a queue, where the clock is faked. Workers take
// jobs at a rate.
type drainedQueue struct {
	mu       sync.Mutex
	limit    int
	pending  int
	taken    int
	admitted int64
	below    time.Time // since when the queue is below its limit
}

func (q *drainedQueue) Sample(_ context.Context, since Cursor, _ bool) (Sample, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := [2]int{q.taken, q.pending}
	s := Sample{Pending: int64(q.pending), Running: 10, AgeKnown: true, Admitted: q.admitted, Cursor: now}
	if before, ok := since.([2]int); ok {
		taken := q.taken - before[0]
		s.Left, s.LeftExact = int64(min(taken, before[1])), taken < before[1]
	}
	return s, nil
}

func (q *drainedQueue) Admit(context.Context, Place, time.Duration) (Admission, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending >= q.limit {
		return Admission{Pending: int64(q.pending)}, nil
	}
	q.pending++
	q.admitted++
	return Admission{Admitted: true, Pending: int64(q.pending) - 1}, nil
}

func (q *drainedQueue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending
}

// drain has workers take jobs until ctx ends, with these pauses.
func (q *drainedQueue) drain(ctx context.Context, pause func() time.Duration) {
	for ctx.Err() == nil {
		sleep(ctx, pause())
		q.mu.Lock()
		if q.pending > 0 {
			q.pending--
			q.taken++
			if q.pending == q.limit-1 {
				q.below = time.Now()
			}
		}
		q.mu.Unlock()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// evenly and randomly are the pauses between jobs that leave at a rate per second.
func evenly(rate float64, _ uint64) func() time.Duration {
	return func() time.Duration { return time.Duration(float64(time.Second) / rate) }
}

func randomly(rate float64, seed uint64) func() time.Duration {
	random := rand.New(rand.NewPCG(seed, 1))
	return func() time.Duration { return time.Duration(random.ExpFloat64() * float64(time.Second) / rate) }
}

// startGates runs monitors over the queue while f runs.
func startGates(t *testing.T, q *drainedQueue, cfg Config, n int, pause func() time.Duration, f func(ctx context.Context, gates []*Monitor)) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var gates []*Monitor
	for range n {
		m := newTestMonitor(cfg, q)
		gates = append(gates, m)
		running.Go(func() { _ = m.Run(ctx) })
	}
	running.Go(func() { q.drain(ctx, pause) })
	f(ctx, gates)
	cancel()
	running.Wait()
}

// sims are the values of QUEUE_RETRY_DELAY under which Retry-After is looked at, and the
// rates per second at which jobs leave: a delay so short that only the estimate shows,
// and the default, which hides the estimate unless the queue is slow.
var sims = []struct {
	delay time.Duration
	rates []float64
}{
	{time.Second, []float64{0.1, 2, 10, 50}},
	{validConfig().RetryDelay, []float64{0.1, 0.5, 2}},
}

// TestRetryAfterIsTrue: while no job comes, a client that waits as Admit tells it
// finds room in at least nine of ten cases, whether jobs leave evenly or at random,
// and Retry-After is not much longer than it has to be.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	for _, sim := range sims {
		delay := sim.delay
		for _, rate := range sim.rates {
			for name, pauses := range map[string]func(float64, uint64) func() time.Duration{"evenly": evenly, "randomly": randomly} {
				t.Run(fmt.Sprint("retry delay ", delay, ", ", rate, " jobs a second, ", name), func(t *testing.T) {
					t.Parallel()
					testRetryAfter(t, delay, rate, pauses)
				})
			}
		}
	}
}

func testRetryAfter(t *testing.T, delay time.Duration, rate float64, pauses func(float64, uint64) func() time.Duration) {
	var asked, kept, estimated int
	var total, needed time.Duration
	longest := time.Duration(1.2 * float64(delay))
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			for _, a := range askWhileItDrains(t, delay, rate, pauses(rate, seed)) {
				asked++
				if a.retryAfter >= a.needed {
					kept++
				}
				if a.retryAfter > longest+time.Second {
					estimated++
				}
				total, needed = total+a.retryAfter, needed+max(a.needed, delay)
				if most := max(longest, time.Duration(5*float64(a.jobs)/rate*float64(time.Second))) + 3*time.Second; a.retryAfter > most {
					t.Errorf("Retry-After is %s for %d jobs to leave, want %s at most", a.retryAfter, a.jobs, most)
				}
			}
		})
	}
	t.Logf("%d asked, %.1f %% true; Retry-After %s, needed %s on average; %d by the estimate", asked, 100*float64(kept)/float64(asked),
		total/time.Duration(asked), needed/time.Duration(asked), estimated)
	if asked < 1000 || kept < asked*9/10 {
		t.Errorf("%d of %d found room after Retry-After, want nine of ten of many", kept, asked)
	}
	// The shortest is a second, and each is rounded up to one.
	if most := 2*needed + time.Duration(asked)*2*time.Second; total > most {
		t.Errorf("Retry-After is %s in all, want %s at most", total, most)
	}
	// Six times the limit takes 400 s at 0.5 jobs a second: the default hides little.
	if rate <= 0.5 && estimated < asked/2 {
		t.Errorf("%d of %d waits were by the estimate, want half of them: the estimate was not put to the test", estimated, asked)
	}
}

// asked is a Retry-After, and how long the client would have had to wait.
type asked struct {
	retryAfter, needed time.Duration
	jobs               int // that had to leave
}

// askWhileItDrains asks now and then until a queue of six times its limit is below it.
func askWhileItDrains(t *testing.T, delay time.Duration, rate float64, pause func() time.Duration) (all []asked) {
	cfg := validConfig()
	cfg.RetryDelay, cfg.RetryMax = delay, time.Hour
	q := &drainedQueue{limit: validLimits().MaxPending, pending: 6 * validLimits().MaxPending}
	startGates(t, q, cfg, 1, pause, func(ctx context.Context, gates []*Monitor) {
		var at []time.Time
		for {
			sleep(ctx, time.Duration(float64(time.Second)/rate/3))
			jobs := q.depth() - q.limit + 1
			if gates[0].flow(time.Now()).jobs < 10 {
				continue // no rate is known so early
			}
			state, wait := see(gates[0]).tryAdmit(ctx, Asker{})
			if state == StateOK {
				break
			}
			at = append(at, time.Now())
			all = append(all, asked{retryAfter: jittered(wait, rand.Float64()), jobs: jobs})
		}
		for i := range all {
			all[i].needed = q.below.Sub(at[i])
		}
	})
	return all
}

// TestCrowdFindsRoom: many clients come at once, others come for half of the places
// that become free, and all wait as Retry-After says. At least nine of ten times that a
// client comes back there is room, with one gate and with three, and the last client
// gets in not much later than it has to.
func TestCrowdFindsRoom(t *testing.T) {
	t.Parallel()
	for _, sim := range sims {
		delay := sim.delay
		for _, gates := range []int{1, 3} {
			for _, rate := range sim.rates {
				size := 300
				if rate < 1 { // more would have to wait longer than QUEUE_RETRY_MAX
					size = int(240 * rate)
				}
				if size < 100 {
					continue
				}
				for name, pauses := range map[string]func(float64, uint64) func() time.Duration{"evenly": evenly, "randomly": randomly} {
					for _, others := range []float64{0, 0.5} {
						t.Run(fmt.Sprint("retry delay ", delay, ", ", gates, " gates, ", rate, " jobs a second, ", name, ", others ", others), func(t *testing.T) {
							t.Parallel()
							synctest.Test(t, func(t *testing.T) {
								c := playCrowd(t, size, delay, gates, rate, pauses(rate, 3), others)
								t.Logf("%d came back, %d found room; the last of them after %s", c.back, c.room, c.last)
								if c.back < 100 || c.room < c.back*9/10 {
									t.Errorf("%d of %d found room, want nine of ten of many", c.room, c.back)
								}
								// Each second place is theirs, of as many as the gate thinks are its own.
								if most := time.Duration(3*float64(size)*(1+others)/rate)*time.Second + 10*time.Second + 2*delay; c.last > most {
									t.Errorf("the last got in after %s, want %s at most", c.last, most)
								}
							})
						})
					}
				}
			}
		}
	}
}

// crowd is what became of clients that obey.
type crowd struct {
	mu         sync.Mutex
	back, room int           // that came back after Retry-After, and found room
	last       time.Duration // until the last of the crowd was in
}

func playCrowd(t *testing.T, size int, delay time.Duration, n int, rate float64, pause func() time.Duration, others float64) *crowd {
	cfg := validConfig()
	cfg.RetryDelay = delay
	q := &drainedQueue{limit: validLimits().MaxPending, pending: validLimits().MaxPending}
	var c crowd
	startGates(t, q, cfg, n, pause, func(ctx context.Context, gates []*Monitor) {
		random := rand.New(rand.NewPCG(5, 1))
		for range max(int(30*rate), 2*drainJobs) { // the rate becomes known, and each gate's share
			sleep(ctx, evenly(rate, 0)())
			see(gates[random.IntN(n)]).Admit(ctx, Asker{Address: "before the crowd"})
		}
		var clients sync.WaitGroup
		for i := range size {
			clients.Go(func() { c.come(ctx, fmt.Sprint("one of the crowd, ", i), gates) })
		}
		pauses := randomly(rate*others, 9)
		for i := range int(float64(size) * others) {
			sleep(ctx, pauses())
			clients.Go(func() { c.come(ctx, fmt.Sprint("another, ", i), gates) })
		}
		clients.Wait()
	})
	return &c
}

// come asks until the client is let in, each time after Retry-After.
func (c *crowd) come(ctx context.Context, name string, gates []*Monitor) {
	begin := time.Now()
	for back := false; ; back = true {
		c.mu.Lock() // one after the other, as Redis has them
		m := gates[rand.IntN(len(gates))]
		v := see(m).Shed(Asker{Address: name}, true)
		if v.State != StateFull || v.Provisional {
			v = see(m).Admit(ctx, Asker{Address: name})
		}
		if back {
			c.back++
			if v.State == StateOK {
				c.room++
			}
		}
		c.last = max(c.last, time.Since(begin))
		c.mu.Unlock()
		if v.State == StateOK {
			return
		}
		sleep(ctx, v.RetryAfter())
	}
}
