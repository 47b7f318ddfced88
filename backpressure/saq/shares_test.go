package saq

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// sharedQueue is a played queue of which the test knows whose jobs wait and are on their way.
type sharedQueue struct {
	playedQueue

	queue           *Queue
	waiting, flight []string // callers, the oldest first
}

func newSharedQueue(t *testing.T) *sharedQueue {
	rdb := redistest.Start(t).Client(t)
	return &sharedQueue{playedQueue: playedQueue{t: t, rdb: rdb}, queue: newQueue(rdb)}
}

// ask asks for a place.
func (q *sharedQueue) ask(limit int, share float64, caller string) backpressure.Admission {
	q.t.Helper()
	a, err := q.queue.Admit(q.t.Context(), backpressure.Place{Limit: limit, Share: share, Caller: caller}, longWindow)
	must(q.t, err)
	if a.Admitted {
		q.flight = append(q.flight, caller)
	}
	return a
}

// arrive has the job of the oldest admission arrive, leave the one that waits longest go to a worker.
func (q *sharedQueue) arrive() {
	if len(q.flight) > 0 {
		q.enqueue()
		q.waiting, q.flight = append(q.waiting, q.flight[0]), q.flight[1:]
	}
}

func (q *sharedQueue) leave() {
	if len(q.waiting) > 0 {
		q.take()
		q.waiting = q.waiting[1:]
	}
}

func (q *sharedQueue) all() []string { return slices.Concat(q.waiting, q.flight) }

// count is how many jobs of a caller Redis knows of.
func (q *sharedQueue) count(caller string) int {
	return int(q.rdb.ZScore(q.t.Context(), q.queue.sharesKey(), caller).Val())
}

func of(callers []string, caller string) (n int) {
	for _, c := range callers {
		if c == caller {
			n++
		}
	}
	return n
}

// want is what a queue that knows everything answers.
func (q *sharedQueue) want(limit int, share float64, caller string) backpressure.Admission {
	all := q.all()
	pending := len(all)
	most := int(math.Floor(share*float64(limit-pending-1) + 1e-9))
	switch held := of(all, caller); {
	case len(q.waiting) >= limit: // then what is on its way is not looked at
		return backpressure.Admission{Pending: int64(len(q.waiting))}
	case pending >= limit || most < 1:
		return backpressure.Admission{Pending: int64(pending)}
	case held+1 > most:
		return backpressure.Admission{OverShare: true, Pending: int64(slices.Index(all, caller) + 1)}
	default:
		return backpressure.Admission{Admitted: true, Pending: int64(pending)}
	}
}

// wantHeld compares what a queue says of a caller when nobody asks for a place.
func (q *sharedQueue) wantHeld(caller string, want int) {
	q.t.Helper()
	held, pending, err := q.queue.Held(q.t.Context(), caller, longWindow)
	must(q.t, err)
	if held != int64(want) || pending != int64(len(q.all())) {
		q.t.Fatalf("%s has %d of %d jobs, want %d of %d", caller, held, pending, want, len(q.all()))
	}
}

// TestShareIsExact: while jobs only come through the gate and are taken in order, nobody has more than its share and
// nobody is refused below it, whatever thresholds the callers see. Retry-After is told of the caller's oldest job.
func TestShareIsExact(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0.1, 0.29, 0.5, 1, 2, 8} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(7, math.Float64bits(share)))
			q := newSharedQueue(t)
			outcomes := map[backpressure.Admission]int{}
			for step := range 4000 {
				leaves := []int{0, 1, 2, 40}[step/200%4]
				switch n := random.IntN(100); {
				case n < 42:
					limit := []int{limit, limit * 4 / 5}[random.IntN(2)]
					caller := fmt.Sprint("ip:", random.IntN(8)*random.IntN(2)) // some ask more than others
					want := q.want(limit, share, caller)
					if got := q.ask(limit, share, caller); got != want {
						t.Fatalf("step %d: %s with %d of %d jobs gets %+v, want %+v", step, caller, of(q.all(), caller), len(q.all()), got, want)
					}
					want.Pending = 0
					outcomes[want]++
				case n < 90:
					q.arrive()
				default:
					for range leaves {
						q.leave()
					}
				}
				if caller := fmt.Sprint("ip:", step%8); step%13 == 0 {
					q.wantHeld(caller, of(q.all(), caller))
				}
			}
			full := outcomes[backpressure.Admission{}]
			if len(outcomes) < 2 || share >= 1 && full == 0 {
				t.Errorf("outcomes %v: too little was put to the test", outcomes)
			}
		})
	}
}

// TestShareAlone: a caller that is alone holds α/(1+α) of the places, and the next one gets in at once.
func TestShareAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit int
		share float64
		most  int
	}{
		{40, 1, 20}, {40, 0.5, 13}, {40, 0.25, 8}, {40, 2, 26}, {40, 4, 32}, {41, 1, 20}, {100, 0.29, 22}, {10_000, 1, 5000},
	} {
		t.Run(fmt.Sprint(c.limit, c.share), func(t *testing.T) {
			t.Parallel()
			q := newSharedQueue(t)
			held := 0
			for q.ask(c.limit, c.share, "ann").Admitted {
				held++
			}
			if held != c.most {
				t.Errorf("ann alone has %d jobs, want %d", held, c.most)
			}
			if a := q.ask(c.limit, c.share, "ann"); !a.OverShare || a.Pending != 1 {
				t.Errorf("ann gets %+v, want that her share is over until 1 has left", a)
			}
			if !q.ask(c.limit, c.share, "bob").Admitted {
				t.Error("bob is not admitted")
			}
		})
	}
}

// TestShareOfCrowd: 300 requests of one caller at once leave room for ten others.
func TestShareOfCrowd(t *testing.T) {
	t.Parallel()
	q := newSharedQueue(t)
	for range 300 {
		q.ask(limit, 1, "crowd")
	}
	for i := range 10 {
		if !q.ask(limit, 1, fmt.Sprint("ip:", i)).Admitted {
			t.Errorf("other %d is not admitted", i)
		}
	}
}

// TestShareKeys: what is kept does not outlast the jobs by much, and expires.
func TestShareKeys(t *testing.T) {
	t.Parallel()
	q := newSharedQueue(t)
	order, counts := q.queue.orderKey(), q.queue.sharesKey()
	most := int64(0)
	for i := range 2000 {
		if !q.ask(limit, 8, fmt.Sprint("ip:", i)).Admitted {
			t.Fatal("not admitted")
		}
		q.arrive()
		if i > 10 {
			q.leave()
		}
		listed, counted := q.rdb.LLen(t.Context(), order).Val(), q.rdb.ZCard(t.Context(), counts).Val()
		if listed != counted {
			t.Fatalf("%d in the list, %d counted", listed, counted)
		}
		most = max(most, listed)
	}
	if most > 11+limit/10+1 {
		t.Errorf("%d elements at most, with 11 jobs", most)
	}
	for _, key := range []string{order, counts} {
		if left := q.rdb.TTL(t.Context(), key).Val(); left < 6*24*time.Hour {
			t.Errorf("%s lasts %v", key, left)
		}
		must(t, q.rdb.Expire(t.Context(), key, time.Minute).Err())
	}
	// Each window renews them.
	shiftWindow(t, q.rdb, -longWindow)
	if !q.ask(limit, 8, "ip:1").Admitted {
		t.Fatal("not admitted")
	}
	for _, key := range []string{order, counts} {
		if left := q.rdb.TTL(t.Context(), key).Val(); left < 6*24*time.Hour {
			t.Errorf("%s lasts %v after another window", key, left)
		}
	}
}

// TestShareAfterMany: when thousands of jobs have left since somebody asked, a call cuts the list by a bounded number.
// Until all are cut the counts are too high.
func TestShareAfterMany(t *testing.T) {
	t.Parallel()
	q := newSharedQueue(t)
	const places = 4000
	for range 2000 {
		q.ask(places, 1, "ann")
	}
	for range 2000 {
		q.arrive()
	}
	for range 1000 {
		q.leave()
	}
	if got := q.count("ann"); got != 2000 {
		t.Fatalf("count %d before anybody asks, want 2000", got)
	}
	q.wantHeld("ann", 1000) // of 1744 by what one call looks at
	q.wantHeld("bob", 0)
	for i, want := range []int{1745, 1490, 1235, 1236, 1237} { // at most 256 less and one more; a few are left for later
		if !q.ask(places, 1, "ann").Admitted {
			t.Fatal("not admitted")
		}
		if got := q.count("ann"); got != want {
			t.Errorf("call %d: count %d, want %d", i, got, want)
		}
	}
	for range 1000 {
		q.arrive()
		q.leave()
	}
	for len(q.waiting) > 0 {
		q.leave()
	}
	q.wantHeld("ann", 0)
	q.ask(places, 1, "bob") // far fewer jobs than elements: what stays is counted anew
	if got := [2]int{q.count("ann"), q.count("bob")}; got != [2]int{0, 1} {
		t.Errorf("counts %v after the queue was empty, want 0 and 1", got)
	}
}

// TestShareOfLostRequests: requests that were admitted and became no job. When the window has forgotten them, they stand
// in the list for the oldest jobs, until these have left: their caller has as many too many as the others too few.
func TestShareOfLostRequests(t *testing.T) {
	t.Parallel()
	q := newSharedQueue(t)
	for range 10 {
		q.ask(limit, 1, "bob")
		q.arrive()
	}
	for range 4 {
		q.ask(limit, 1, "ann") // and no job arrives
	}
	counts := func() [2]int {
		q.ask(limit, 0.1, "ann") // refused: the counts are exact
		return [2]int{q.count("ann"), q.count("bob")}
	}
	if got := counts(); got != [2]int{4, 10} {
		t.Fatalf("counts %v while they are on their way, want 4 and 10", got)
	}
	shiftWindow(t, q.rdb, -2*longWindow)
	if got := counts(); got != [2]int{4, 6} {
		t.Errorf("counts %v of 0 and 10 jobs, want 4 and 6", got)
	}
	for range 7 {
		q.leave()
	}
	if got := counts(); got != [2]int{3, 0} {
		t.Errorf("counts %v of 0 and 3 jobs, want 3 and 0", got)
	}
	for range 3 {
		q.leave()
	}
	if !q.ask(limit, 1, "bob").Admitted || q.ask(limit, 0.1, "ann").OverShare {
		t.Error("an empty queue did not end the errors")
	}
}

// TestSampleOfShares: a sample tells the largest share, and never more than what waits.
func TestSampleOfShares(t *testing.T) {
	t.Parallel()
	q := newSharedQueue(t)
	largest := func(asked bool) int64 {
		s, err := q.queue.Sample(t.Context(), nil, asked)
		must(t, err)
		return s.LargestShare
	}
	if got := largest(true); got != 0 {
		t.Errorf("%d of an empty queue", got)
	}
	for _, caller := range []string{"ann", "bob", "ann", "ann", "bob"} {
		q.ask(limit, 1, caller)
		q.arrive()
	}
	if got := [2]int64{largest(true), largest(false)}; got != [2]int64{3, 0} {
		t.Errorf("%v, want 3, and 0 if nobody asks", got)
	}
	for range 4 {
		q.leave()
	}
	if got := largest(true); got != 1 {
		t.Errorf("%d with one job", got)
	}
}

// TestShareRefusalKeepsCounts: a caller that is refused again and again changes nothing for itself or others.
func TestShareRefusalKeepsCounts(t *testing.T) {
	t.Parallel()
	q := newSharedQueue(t)
	for q.ask(limit, 1, "ann").Admitted {
	}
	before := q.rdb.ZRangeWithScores(t.Context(), q.queue.sharesKey(), 0, -1).Val()
	for range 100 {
		q.ask(limit, 1, "ann")
	}
	after := q.rdb.ZRangeWithScores(t.Context(), q.queue.sharesKey(), 0, -1).Val()
	if !slices.Equal(before, after) || !slices.Equal(after, []redis.Z{{Member: "ann", Score: 20}}) {
		t.Errorf("counts %v, then %v", before, after)
	}
}
