// Package quotatest says what every [quota.Store] must do, as tests that each store
// runs.
package quotatest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Clock makes time pass for the store under test.
type Clock interface {
	// Now is the store's time.
	Now() time.Time
	// Pass returns when d has passed.
	Pass(d time.Duration)
}

// Run tests the stores that open returns. Each of them must be empty.
func Run(t *testing.T, open func(t *testing.T) (quota.Store, Clock)) {
	tests := map[string]func(*testing.T, quota.Store, Clock){
		"exactly capacity at once":           testCapacity,
		"refills one token per interval":     testRefill,
		"the wait is long enough":            testWait,
		"all or nothing":                     testAllOrNothing,
		"all or nothing with many callers":   testAllOrNothingConcurrent,
		"subjects and policies are separate": testSeparate,
		"denials cost nothing":               testDenialIsFree,
		"a refund puts tokens back":          testRefund,
		"a refund never overfills":           testRefundFull,
		"an empty bucket has no tier":        testTierChange,
		"a lowered limit is kept to":         testLowered,
		"never above capacity plus rate":     testWindow,
		"99.9 % of the rate under load":      testSaturation,
		"each bucket has its limit":          testLimits,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			store, clock := open(t)
			test(t, store, clock)
		})
	}
}

// Of is a request for a token of each of these buckets, which have the same limit.
func Of(l quota.Limit, keys ...string) quota.Request {
	var req quota.Request
	for _, key := range keys {
		req.Buckets = append(req.Buckets, quota.Bucket{Key: key, Limit: l})
	}
	return req
}

// slow is a limit that refills no token during a test.
var slow = quota.Limit{Capacity: 10, Interval: time.Hour}

func take(t *testing.T, s quota.Store, l quota.Limit, keys ...string) quota.Result {
	t.Helper()
	r, err := s.Take(t.Context(), Of(l, keys...))
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	return r
}

// drain takes until no token is left and returns how many were taken.
func drain(t *testing.T, s quota.Store, l quota.Limit, keys ...string) int64 {
	t.Helper()
	for n := range l.Capacity + 1 {
		if !take(t, s, l, keys...).Taken {
			return n
		}
	}
	t.Fatalf("more than the capacity of %d taken", l.Capacity)
	return 0
}

func testCapacity(t *testing.T, s quota.Store, _ Clock) {
	for i := range slow.Capacity {
		r := take(t, s, slow, "a")
		if !r.Taken || r.Remaining() != slow.Capacity-i-1 {
			t.Fatalf("take %d: taken %v, remaining %d; want true, %d", i+1, r.Taken, r.Remaining(), slow.Capacity-i-1)
		}
	}
	r := take(t, s, slow, "a")
	if r.Taken || r.Remaining() != 0 {
		t.Fatalf("take after capacity: taken %v, remaining %d; want false, 0", r.Taken, r.Remaining())
	}
	if w := r.NextToken(); w > slow.Interval || w < slow.Interval-time.Minute {
		t.Errorf("wait %v, want almost %v", w, slow.Interval)
	}
}

func testRefill(t *testing.T, s quota.Store, c Clock) {
	l := quota.Limit{Capacity: 3, Interval: 200 * time.Millisecond}
	drain(t, s, l, "a")
	last := c.Now() // the bucket is exactly empty at the latest now
	for range 3 {
		c.Pass(l.Interval - c.Now().Sub(last))
		last = last.Add(l.Interval)
		if !take(t, s, l, "a").Taken {
			t.Fatal("no token an interval after the last")
		}
	}
	c.Pass(l.Span())
	if got := take(t, s, l, "a").Remaining(); got != l.Capacity-1 {
		t.Errorf("remaining after a whole span: %d, want %d", got, l.Capacity-1)
	}
}

func testWait(t *testing.T, s quota.Store, c Clock) {
	l := quota.Limit{Capacity: 2, Interval: 150 * time.Millisecond}
	for range 5 {
		for take(t, s, l, "a").Taken {
		}
		r := take(t, s, l, "a")
		if r.Taken { // the clock went on
			continue
		}
		c.Pass(r.NextToken())
		if !take(t, s, l, "a").Taken {
			t.Fatalf("denied after a wait of %v, as NextToken said", r.NextToken())
		}
	}
}

func testAllOrNothing(t *testing.T, s quota.Store, _ Clock) {
	drain(t, s, slow, "user")
	if r := take(t, s, slow, "ip", "user"); r.Taken {
		t.Fatal("taken although the second bucket is empty")
	}
	if r := take(t, s, slow, "user", "ip"); r.Taken {
		t.Fatal("taken although the first bucket is empty")
	}
	if got := take(t, s, slow, "ip").Remaining(); got != slow.Capacity-1 {
		t.Errorf("the other bucket has %d left after one take, want %d: a denial was charged", got, slow.Capacity-1)
	}
}

// testAllOrNothingConcurrent has 64 callers that share one IP, each with its own user; the
// buckets of half of the users are empty. The bucket of the IP must be charged once for
// each Take that took, and for no other.
func testAllOrNothingConcurrent(t *testing.T, s quota.Store, _ Clock) {
	const callers, tries = 64, 20
	ip := quota.Limit{Capacity: 200, Interval: time.Hour}
	for i := range callers { // half of the users are empty
		if i%2 == 0 {
			drain(t, s, ip, fmt.Sprint("user", i))
		}
	}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range tries {
				r, err := s.Take(context.WithoutCancel(t.Context()), Of(ip, "ip", fmt.Sprint("user", i)))
				if err != nil {
					t.Errorf("Take: %v", err)
					return
				}
				if r.Taken {
					taken.Add(1)
					if i%2 == 0 {
						t.Errorf("user %d took from an empty bucket", i)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := taken.Load(); got != ip.Capacity {
		t.Errorf("%d taken together, want the capacity of %d", got, ip.Capacity)
	}
	// What each user paid plus what it has left must be its capacity.
	var left int64
	for i := 1; i < callers; i += 2 {
		left += drain(t, s, ip, fmt.Sprint("user", i))
	}
	if want := callers/2*ip.Capacity - taken.Load(); left != want {
		t.Errorf("the users have %d left, want %d: denials were charged", left, want)
	}
}

func testSeparate(t *testing.T, s quota.Store, _ Clock) {
	drain(t, s, slow, quota.Key("run", "ip:a"))
	for _, key := range []string{quota.Key("run", "ip:b"), quota.Key("assistant", "ip:a"), quota.Key("run", "user:a")} {
		if got := take(t, s, slow, key).Remaining(); got != slow.Capacity-1 {
			t.Errorf("%s has %d left, want %d", key, got, slow.Capacity-1)
		}
	}
}

func testDenialIsFree(t *testing.T, s quota.Store, _ Clock) {
	drain(t, s, slow, "a")
	before := take(t, s, slow, "a").Debt
	for range 100 {
		take(t, s, slow, "a")
	}
	if after := take(t, s, slow, "a").Debt; after > before {
		t.Errorf("denials raised the debt from %v to %v", before, after)
	}
}

func testRefund(t *testing.T, s quota.Store, _ Clock) {
	r := take(t, s, slow, "a", "b")
	if err := s.Refund(t.Context(), r, Of(slow, "a", "b").Buckets); err != nil {
		t.Fatalf("Refund: %v", err)
	}
	for _, key := range []string{"a", "b"} {
		if got := drain(t, s, slow, key); got != slow.Capacity {
			t.Errorf("bucket %s had %d after the refund, want %d", key, got, slow.Capacity)
		}
	}
}

func testRefundFull(t *testing.T, s quota.Store, _ Clock) {
	r := take(t, s, slow, "a")
	for range 3 {
		if err := s.Refund(t.Context(), r, Of(slow, "a").Buckets); err != nil {
			t.Fatalf("Refund: %v", err)
		}
	}
	if got := drain(t, s, slow, "a"); got != slow.Capacity {
		t.Errorf("%d taken after too many refunds, want the capacity of %d", got, slow.Capacity)
	}
}

func testTierChange(t *testing.T, s quota.Store, _ Clock) {
	for i, tiers := range [][]quota.Limit{
		quota.Limits(10, 6, time.Minute, 1, 3), quota.Limits(1, 1, time.Minute, 1, 1.5), quota.Limits(7, 3, time.Minute, 1, 2.3), quota.Limits(40, 1, time.Minute, 1, 7),
	} {
		plainFirst, premiumFirst := fmt.Sprint("a", i), fmt.Sprint("b", i)
		drain(t, s, tiers[0], plainFirst)
		if r := take(t, s, tiers[1], plainFirst); r.Taken {
			t.Errorf("tiers %+v: an empty plain bucket had a premium token", tiers)
		}
		drain(t, s, tiers[1], premiumFirst)
		if r := take(t, s, tiers[0], premiumFirst); r.Taken {
			t.Errorf("tiers %+v: an empty premium bucket had a plain token", tiers)
		}
	}
}

func testLowered(t *testing.T, s quota.Store, _ Clock) {
	drain(t, s, quota.Limit{Capacity: 1000, Interval: time.Hour}, "a")
	r := take(t, s, slow, "a")
	if r.Taken || r.NextToken() > slow.Interval {
		t.Errorf("taken %v, wait %v; want a wait of at most %v: the bucket can't be emptier than empty", r.Taken, r.NextToken(), slow.Interval)
	}
}

// testWindow takes at random moments and then checks every window of time.
func testWindow(t *testing.T, s quota.Store, c Clock) {
	l := quota.Limit{Capacity: 7, Interval: 3 * time.Millisecond}
	random := rand.New(rand.NewPCG(1, 2))
	// The admission happens between these two readings of the clock.
	var before, after []time.Time
	for end := c.Now().Add(time.Second); c.Now().Before(end); {
		start := c.Now()
		if take(t, s, l, "a").Taken {
			before, after = append(before, start), append(after, c.Now())
		}
		switch random.IntN(20) {
		case 0:
			c.Pass(time.Duration(random.IntN(20)) * time.Millisecond)
		case 1, 2, 3:
			c.Pass(time.Duration(random.IntN(1500)) * time.Microsecond)
		}
	}
	if len(before) < 100 {
		t.Fatalf("only %d admissions, too few to tell", len(before))
	}
	for i := range before {
		for j := i; j < len(before); j++ {
			window := after[j].Sub(before[i])
			if most := l.Capacity + int64(window/l.Interval); int64(j-i+1) > most {
				t.Fatalf("%d admissions in %v, at most %d are allowed", j-i+1, window, most)
			}
		}
	}
}

// testSaturation takes without pause and must get all tokens of the refill. The capacity
// is so large that a stall of the machine loses none.
func testSaturation(t *testing.T, s quota.Store, c Clock) {
	const perMinute = 29_999
	l := quota.Limits(1000, perMinute, time.Minute, 1)[0]
	for take(t, s, l, "a").Taken {
	}
	start, n := c.Now(), 0
	for c.Now().Sub(start) < 2*time.Second {
		if r := take(t, s, l, "a"); r.Taken {
			n++
		} else {
			c.Pass(min(r.NextToken(), time.Millisecond))
		}
	}
	for take(t, s, l, "a").Taken {
		n++
	}
	// One token may be half refilled.
	if want := c.Now().Sub(start).Minutes()*perMinute*0.999 - 1; float64(n) < want {
		t.Errorf("%d handed out, want at least %.1f", n, want)
	}
}

// testLimits: each bucket is charged by its own limit, and the result is that of the
// bucket that runs out first, or is empty for the longest time.
func testLimits(t *testing.T, s quota.Store, _ Clock) {
	few, many := quota.Limit{Capacity: 2, Interval: time.Minute}, quota.Limit{Capacity: 5, Interval: time.Hour}
	req := quota.Request{Buckets: []quota.Bucket{{Key: "many", Limit: many}, {Key: "few", Limit: few}}}
	ask := func() quota.Result {
		t.Helper()
		r, err := s.Take(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for i := range few.Capacity {
		if r := ask(); !r.Taken || r.Bucket != 1 || r.Limit != few || r.Remaining() != few.Capacity-1-i {
			t.Fatalf("take %d: %+v, %d left; want that of the bucket with 2 tokens", i+1, r, r.Remaining())
		}
	}
	if r := ask(); !r.Empty() || r.Bucket != 1 || r.NextToken() > few.Interval {
		t.Errorf("with that bucket empty: %+v, wait %v", r, r.NextToken())
	}
	if got := drain(t, s, many, "many"); got != many.Capacity-few.Capacity {
		t.Errorf("the other bucket had %d left, want %d", got, many.Capacity-few.Capacity)
	}
	if r := ask(); !r.Empty() || r.Bucket != 0 || r.Limit != many || r.NextToken() <= few.Interval {
		t.Errorf("with both empty: %+v, wait %v; want the longer wait", r, r.NextToken())
	}
	testMany(t, s)
}

// testMany: of many buckets, one that is empty keeps all others from being charged, wherever it stands.
func testMany(t *testing.T, s quota.Store) {
	limit, drained := quota.Limit{Capacity: 3, Interval: time.Hour}, quota.Limit{Capacity: 1, Interval: 2 * time.Hour}
	for empty := range 8 {
		var req quota.Request
		for i := range 8 {
			b := quota.Bucket{Key: fmt.Sprint("many", empty, "-", i), Limit: limit}
			if i == empty {
				b.Limit = drained
			}
			req.Buckets = append(req.Buckets, b)
		}
		for want := range 2 {
			r, err := s.Take(t.Context(), req)
			if err != nil || r.Taken != (want == 0) || r.Bucket != empty || r.Limit != drained {
				t.Errorf("bucket %d of 8: take %d: %+v, %v", empty, want, r, err)
			}
		}
		for i, b := range req.Buckets {
			if got := drain(t, s, b.Limit, b.Key); i != empty && got != limit.Capacity-1 {
				t.Errorf("bucket %d of 8 is empty: bucket %d had %d tokens left, want %d", empty, i, got, limit.Capacity-1)
			}
		}
	}
}
