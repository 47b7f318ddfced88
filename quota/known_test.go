package quota

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

// slowAnswers is a Memory whose answers are some time under way.
type slowAnswers struct{ *Memory }

func (s *slowAnswers) Take(ctx context.Context, req Request) (Result, error) {
	time.Sleep(3 * time.Millisecond)
	defer time.Sleep(2 * time.Millisecond)
	return s.Memory.Take(ctx, req)
}

// wouldTake says whether the store would take now.
func (s *slowAnswers) wouldTake(req Request) bool {
	for _, b := range req.Buckets {
		if s.debt(b.Key)+b.Limit.Interval > b.Limit.Span() {
			return false
		}
	}
	return true
}

// TestKnownRefusesNobodyElse: whatever several gates do with the same buckets, for callers
// of whatever tier, and also when their limits change, a gate refuses no request without
// asking that the store would have let in. FuzzStores shows that the store stands for
// take.lua.
func TestKnownRefusesNobodyElse(t *testing.T) {
	refusals := 0
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			store := &slowAnswers{Memory: NewMemoryOf(1000)}
			gates := make([]*Failover, 3)
			for i := range gates {
				gates[i], _, _ = newTestFailover(store, NewMemoryOf(1000))
			}
			for change := range 4 {
				tiers := Limits(1+random.Int64N(5), 1+random.Int64N(200), time.Minute, 1, 1+3*random.Float64())
				for step := range 100 {
					limit := tiers[0]
					if random.IntN(3) == 0 {
						limit = tiers[1]
					}
					req := Request{Buckets: []Bucket{{Key: fmt.Sprint("ip", random.IntN(2)), Limit: limit, MaxDebt: MaxDebt(tiers)}}}
					if random.IntN(2) == 0 {
						req.Buckets = append(req.Buckets, Bucket{Key: fmt.Sprint("user", random.IntN(2)), Limit: limit, MaxDebt: MaxDebt(tiers)})
					}
					gate := gates[random.IntN(len(gates))]
					_, known := gate.known.refuse(req.Buckets, time.Now())
					if known {
						refusals++
					}
					if known && store.wouldTake(req) {
						t.Fatalf("seed %d, change %d, step %d: %+v is refused without asking", seed, change, step, req)
					}
					r, err := gate.Take(t.Context(), req)
					if err != nil || r.Fallback || known && r.Taken {
						t.Fatalf("seed %d, change %d, step %d: %+v, %v", seed, change, step, r, err)
					}
					time.Sleep(time.Duration(random.Int64N(int64(limit.Interval))) / 4)
				}
			}
		})
	}
	if refusals < 10_000 {
		t.Errorf("only %d refusals without asking, too few to tell", refusals)
	}
}

// TestKnownEmpty: a caller that was refused is refused again without asking, until its
// next token, and never for longer than a second on the word of one answer.
func TestKnownEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &brokenStore{Memory: NewMemory()}
		f, reg, _ := newTestFailover(store, NewMemory())
		limit := Limit{Capacity: 1, Interval: 10 * time.Second}
		ask := func(taken bool, asked int64) Result {
			t.Helper()
			r, err := f.Take(t.Context(), of(limit, "a"))
			if err != nil || r.Taken != taken || r.Fallback || store.asked.Load() != asked {
				t.Fatalf("%+v, %v, after %d questions; want taken %v after %d", r, err, store.asked.Load(), taken, asked)
			}
			return r
		}
		ask(true, 1)
		ask(false, 2)
		for range 100 {
			ask(false, 2)
		}
		time.Sleep(900 * time.Millisecond)
		if r := ask(false, 2); r.NextToken() != 9100*time.Millisecond {
			t.Errorf("wait %v, want 9.1 s", r.NextToken())
		}
		time.Sleep(100 * time.Millisecond)
		ask(false, 3) // a second is over
		time.Sleep(8500 * time.Millisecond)
		ask(false, 4)
		time.Sleep(500 * time.Millisecond)
		ask(true, 5) // the next token, within a second of the last question
		if n := metrictest.Value(t, reg, "refrakt_gate_limiter_known_empty_total"); n != 101 {
			t.Errorf("%v refusals without asking are counted, want 101", n)
		}
	})
}

// TestKnownBeforeTheAnswer: a request that came before the answer from which it is refused is
// told no more than that answer.
func TestKnownBeforeTheAnswer(t *testing.T) {
	k, now := newKnown(), time.Now()
	buckets := of(oneToken, "a").Buckets
	k.remember(buckets, Result{Limit: oneToken, Debt: oneToken.Span()}, now, now.Add(time.Minute))
	if r, ok := k.refuse(buckets, now); !ok || r.Debt != oneToken.Span() {
		t.Errorf("refused %v, debt %v, want %v", ok, r.Debt, oneToken.Span())
	}
}

// TestKnownOtherBucket: what is known of one bucket does not tell a caller who has another
// one too that it may come back before that has a token.
func TestKnownOtherBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _ := newTestFailover(NewMemoryOf(100), NewMemoryOf(100))
		take := func(keys ...string) Result {
			t.Helper()
			r, err := f.Take(t.Context(), of(Limit{Capacity: 1, Interval: 10 * time.Second}, keys...))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		take("ip")
		time.Sleep(8 * time.Second)
		take("user")
		if r := take("ip"); r.NextToken() != 2*time.Second {
			t.Fatalf("wait %v for the one bucket, want 2 s", r.NextToken())
		}
		if r := take("ip", "user"); r.NextToken() != 10*time.Second {
			t.Errorf("wait %v for both, want 10 s", r.NextToken())
		}
	})
}

// TestKnownAndRefunds: where tokens may come back, nothing is remembered.
func TestKnownAndRefunds(t *testing.T) {
	store := &brokenStore{Memory: NewMemory()}
	gate, _, _ := newTestFailover(store, NewMemory())
	another, _, _ := newTestFailover(store, NewMemory())
	req := of(oneToken, "a")
	req.Place = Place{Mode: PlaceRequired}
	r, err := another.Take(t.Context(), req)
	if err != nil || !r.Taken {
		t.Fatal(r, err)
	}
	if r, err := gate.Take(t.Context(), req); err != nil || !r.Empty() {
		t.Fatal(r, err)
	}
	if err := another.Refund(t.Context(), r, req.Buckets); err != nil {
		t.Fatal(err)
	}
	if r, err := gate.Take(t.Context(), req); err != nil || !r.Taken {
		t.Errorf("after a refund by another gate: %+v, %v", r, err)
	}
}

// TestKnownIsBounded: strangers without number neither cost memory nor get a caller
// refused that has tokens.
func TestKnownIsBounded(t *testing.T) {
	k, now := newKnown(), time.Now()
	limit := Limit{Capacity: 1, Interval: time.Hour}
	for i := range 10 * knownSlots {
		b := Bucket{Key: strings.Repeat("x", 100) + fmt.Sprint(i), Limit: limit}
		k.remember([]Bucket{b}, Result{Limit: limit, Debt: limit.Span()}, now, now)
		if _, ok := k.refuse([]Bucket{b}, now); !ok {
			t.Fatal("what was just remembered is forgotten")
		}
		if _, ok := k.refuse([]Bucket{{Key: fmt.Sprint("other", i), Limit: limit}}, now); ok {
			t.Fatal("a bucket is refused that was never seen")
		}
	}
}
