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

// drainedQueue is a queue of which nothing but the counts is played, where the
// clock is faked. Workers take jobs at a rate.
type drainedQueue struct {
	mu      sync.Mutex
	limit   int
	pending int
	taken   int
	let     int64     // admitted
	below   time.Time // since when it is below the limit
}

func (q *drainedQueue) read(_ context.Context, before marks) (reading, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := reading{pending: int64(q.pending), running: 10, ageKnown: true, admitted: q.let, marks: marks{q.taken, q.pending}}
	if before != nil {
		taken, were := q.taken-before[0].(int), before[1].(int)
		r.left, r.exact = int64(min(taken, were)), taken < were
	}
	return r, nil
}

func (q *drainedQueue) ask(context.Context) (admission, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending >= q.limit {
		return admission{pending: int64(q.pending)}, nil
	}
	q.pending++
	q.let++
	return admission{admitted: true, pending: int64(q.pending) - 1}, nil
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
		m := newTestMonitor(cfg, nil)
		m.read, m.ask = q.read, q.ask
		gates = append(gates, m)
		running.Go(func() { _ = m.Run(ctx) })
	}
	running.Go(func() { q.drain(ctx, pause) })
	f(ctx, gates)
	cancel()
	running.Wait()
}

// TestRetryAfterIsHonest: while nothing comes, a client that waits as it is told by
// Admit finds room in at least nine of ten cases, whether jobs leave evenly or at
// random, and it is not told to wait much longer than it has to.
func TestRetryAfterIsHonest(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.1, 2, 10, 50} {
		for name, pauses := range map[string]func(float64, uint64) func() time.Duration{"evenly": evenly, "randomly": randomly} {
			t.Run(fmt.Sprint(rate, " jobs a second, ", name), func(t *testing.T) {
				t.Parallel()
				var asked, honest int
				var told, needed time.Duration
				for seed := range uint64(20) {
					synctest.Test(t, func(t *testing.T) {
						for _, a := range askWhileItDrains(t, rate, pauses(rate, seed)) {
							asked++
							if a.told >= a.needed {
								honest++
							}
							told, needed = told+a.told, needed+a.needed
							if most := time.Duration(5*float64(a.jobs)/rate*float64(time.Second)) + 3*time.Second; a.told > most {
								t.Errorf("told to wait %s for %d jobs to leave, want %s at most", a.told, a.jobs, most)
							}
						}
					})
				}
				t.Logf("%d asked, %.1f %% honest; told %s, needed %s on average", asked, 100*float64(honest)/float64(asked),
					told/time.Duration(asked), needed/time.Duration(asked))
				if asked < 1000 || honest < asked*9/10 {
					t.Errorf("%d of %d found room when they were told to, want nine of ten of many", honest, asked)
				}
				// The shortest is a second, and it is rounded up to one.
				if most := 2*needed + time.Duration(asked)*2*time.Second; told > most {
					t.Errorf("told to wait %s in all, want %s at most", told, most)
				}
			})
		}
	}
}

// asked is what a client was told, and what it would have had to wait.
type asked struct {
	told, needed time.Duration
	jobs         int // that had to leave
}

// askWhileItDrains asks now and then until a queue of six times its limit is below it.
func askWhileItDrains(t *testing.T, rate float64, pause func() time.Duration) (all []asked) {
	cfg := validConfig()
	cfg.RetryDelay = time.Second // the estimate is looked at, not its bounds
	cfg.RetryMax = time.Hour
	q := &drainedQueue{limit: cfg.MaxPending, pending: 6 * cfg.MaxPending}
	startGates(t, q, cfg, 1, pause, func(ctx context.Context, gates []*Monitor) {
		var at []time.Time
		for {
			sleep(ctx, time.Duration(float64(time.Second)/rate/3))
			jobs := q.depth() - q.limit + 1
			if gates[0].flow(time.Now()).jobs < 10 {
				continue // no rate is known so early
			}
			state, wait := gates[0].tryAdmit(ctx)
			if state == StateOK {
				break
			}
			at = append(at, time.Now())
			all = append(all, asked{told: jittered(wait, rand.Float64()), jobs: jobs})
		}
		for i := range all {
			all[i].needed = q.below.Sub(at[i])
		}
	})
	return all
}

// TestCrowdFindsRoom: 300 clients that come at once, and later ones that come for
// half of what is drained, all obey. At least nine of ten times that one comes back
// there is room, in a fleet too, and the last gets in not much later than it has to.
func TestCrowdFindsRoom(t *testing.T) {
	t.Parallel()
	for _, gates := range []int{1, 3} {
		for _, rate := range []float64{2, 10, 50} {
			for name, pauses := range map[string]func(float64, uint64) func() time.Duration{"evenly": evenly, "randomly": randomly} {
				for _, unasked := range []float64{0, 0.5} {
					t.Run(fmt.Sprint(gates, " gates, ", rate, " jobs a second, ", name, ", others ", unasked), func(t *testing.T) {
						t.Parallel()
						synctest.Test(t, func(t *testing.T) {
							c := playCrowd(t, gates, rate, pauses(rate, 3), unasked)
							t.Logf("%d came back, %d found room; the last of them after %s", c.back, c.room, c.last)
							if c.back < 100 || c.room < c.back*9/10 {
								t.Errorf("%d of %d found room, want nine of ten of many", c.room, c.back)
							}
							// Each second place is theirs, of as many as the gate thinks are its own.
							if most := time.Duration(3*crowdSize*(1+unasked)/rate)*time.Second + 10*time.Second; c.last > most {
								t.Errorf("the last got in after %s, want %s at most", c.last, most)
							}
						})
					})
				}
			}
		}
	}
}

const crowdSize = 300

// crowd is what became of clients that obey.
type crowd struct {
	mu         sync.Mutex
	back, room int           // that came back as told, and found room
	last       time.Duration // until the last of the crowd was in
}

func playCrowd(t *testing.T, n int, rate float64, pause func() time.Duration, unasked float64) *crowd {
	cfg := validConfig()
	cfg.RetryDelay = time.Second
	q := &drainedQueue{limit: cfg.MaxPending, pending: cfg.MaxPending}
	var c crowd
	startGates(t, q, cfg, n, pause, func(ctx context.Context, gates []*Monitor) {
		random := rand.New(rand.NewPCG(5, 1))
		for range int(30 * rate) { // the rate becomes known
			sleep(ctx, evenly(rate, 0)())
			gates[random.IntN(n)].Admit(ctx, "before the crowd")
		}
		var clients sync.WaitGroup
		for i := range crowdSize {
			clients.Go(func() { c.come(ctx, fmt.Sprint("one of the crowd, ", i), gates) })
		}
		others := randomly(rate*unasked, 9)
		for i := range int(crowdSize * unasked) {
			sleep(ctx, others())
			clients.Go(func() { c.come(ctx, fmt.Sprint("another, ", i), gates) })
		}
		clients.Wait()
	})
	return &c
}

// come asks until the client is let in, as often and when it is told to.
func (c *crowd) come(ctx context.Context, name string, gates []*Monitor) {
	begin := time.Now()
	for back := false; ; back = true {
		c.mu.Lock() // one after the other, as Redis has them
		m := gates[rand.IntN(len(gates))]
		v := m.Shed(name, true)
		if v.State != StateFull || v.Provisional {
			v = m.Admit(ctx, name)
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
