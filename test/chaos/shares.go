package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Shares is what 20 callers got of a queue that workers drain by 20 jobs a second, where one of them offers ten times its
// share of the drain and the others 0.8 times theirs.
type Shares struct {
	Share  float64 // fair_share; 0: none
	Steady bool    // see offer
	For    time.Duration
	// Of the other 19: what all got of what they offered, and who got least, with the greedy one and without it.
	Others, Least, OthersAlone, LeastAlone float64
	OthersGot, Greedy                      got
	Deepest                                int64
	Idle                                   float64 // part of the looks at which no job waited, with the greedy one
	// Jobs that workers started in the same time, with the greedy one and from a queue that is always full.
	Behind, Full float64
}

// recommendedShare is what docs/policies.md recommends.
const recommendedShare = 0.5

// PlayShares has the callers ask for so long, with the greedy one, and for as long without it. Both times the others send
// the same requests.
func PlayShares(tb testing.TB, share float64, steady bool, d time.Duration) Shares {
	tb.Helper()
	queue := ""
	if share > 0 {
		queue = fmt.Sprintf(", fair_share: %g", share)
	}
	s := startPolicies(tb, queue, "500ms") // jobs that are done within it, on an empty queue, count as still to come
	s.StartWorker(tb, 4)                   // of 0.2 s each
	const perSecond = 20
	var offers []offer
	for i := range 19 {
		offers = append(offers, offer{address: fmt.Sprint("198.51.100.", i), perSecond: 0.8, steady: steady})
	}
	out := Shares{Share: share, Steady: steady, For: d}
	short := min(d, 20*time.Second)
	s.Enqueue(tb, e2e.Jobs{Count: int(short.Seconds()*perSecond) + 2*maxPending, Seconds: 0.2})
	out.Full = watch(tb, s.Client, short).started * d.Seconds() / short.Seconds()
	play := func(offers []offer) ([]got, watched) {
		awaitDepth(tb, s, 0)
		ctx, stop := context.WithCancel(tb.Context())
		defer stop()
		done := make(chan []got)
		go func() { done <- makeOffers(ctx, tb, s, offers, 7) }()
		e2e.Pass(tb, d/10) // until the queue is as full as it becomes
		seen := watch(tb, s.Client, d)
		stop()
		return <-done, seen
	}
	alone, _ := play(offers)
	with, seen := play(append(offers, offer{address: "203.0.113.1", perSecond: 10, steady: steady}))
	out.Greedy = with[len(offers)]
	for _, g := range with[:len(offers)] {
		out.OthersGot = out.OthersGot.and(g)
	}
	out.Others, out.Least = partOf(with[:len(offers)])
	out.OthersAlone, out.LeastAlone = partOf(alone)
	out.Deepest, out.Idle, out.Behind = seen.deepest, seen.idle, seen.started
	return out
}

// partOf is the part of the requests of all that were accepted, and the least part of one.
func partOf(all []got) (part, least float64) {
	var sum got
	least = 1
	for _, g := range all {
		sum, least = sum.and(g), min(least, g.part())
	}
	return sum.part(), least
}

// awaitDepth waits until no more jobs wait.
func awaitDepth(tb testing.TB, s *e2e.Stack, most int64) {
	tb.Helper()
	polltest.Until(tb, 5*time.Minute, "the jobs to be taken", func() error {
		if n := s.Client.LLen(tb.Context(), queued).Val(); n > most {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
}

func (f Shares) seen() string {
	return fmt.Sprintf("the others got %.1f %% of what they asked for (%.1f %% without the greedy one), and who got least %.1f %% (%.1f %%); "+
		"the greedy one got %d of %d; at most %d waited; none waited at %.1f %% of the looks; %.1f %% of what workers take from a queue that is always full was let in",
		100*f.Others, 100*f.OthersAlone, 100*f.Least, 100*f.LeastAlone, f.Greedy.accepted, f.Greedy.asked, f.Deepest, 100*f.Idle, 100*f.Behind/f.Full)
}

func (f Shares) wrong() (wrong []string) {
	if f.Deepest > maxPending {
		wrong = append(wrong, fmt.Sprintf("%d jobs waited, want %d at most", f.Deepest, maxPending))
	}
	if (f.Greedy.share > 0) != (f.Share > 0) {
		wrong = append(wrong, fmt.Sprintf("the greedy one was refused %d times by its share of %g", f.Greedy.share, f.Share))
	}
	return wrong
}

// late lists the targets that were missed.
func (f Shares) late() (missed []string) {
	if f.Share == 0 {
		if f.Least > 0.95*f.LeastAlone {
			missed = append(missed, "without a share nobody is at a disadvantage: the measurement shows nothing")
		}
		return missed
	}
	// Of a caller that comes at random a minute tells little: a few requests that come together are refused together.
	if f.Others < 0.95*f.OthersAlone || f.Steady && f.Least < 0.95*f.LeastAlone {
		missed = append(missed, fmt.Sprintf("the others got %.1f %%, and one of them %.1f %%; the target is 95 %% of what they get without the greedy one", 100*f.Others, 100*f.Least))
	}
	if f.Idle > 0.01 {
		missed = append(missed, fmt.Sprintf("no job waited at %.1f %% of the looks, the target is 1 %%", 100*f.Idle))
	}
	return missed
}

// Crowd is what became of 300 requests at once of one caller, of the next caller, and then of ten others at once, while
// nobody takes jobs.
type Crowd struct{ One, Next, Others []int64 } // jobs, in each round

// PlayCrowd plays so many rounds.
func PlayCrowd(tb testing.TB, rounds int) (out Crowd) {
	tb.Helper()
	s := startPolicies(tb, ", fair_share: 1", patientWindow)
	ask := func(n int, address func(i int) string) int64 {
		var requests sync.WaitGroup
		var accepted atomic.Int64
		for i := range n {
			requests.Go(func() {
				r, err := s.Envoys[i%3].Ask(tb.Context(), "/run", "", "CF-Connecting-IP: "+address(i))
				switch {
				case err != nil:
					tb.Error(err)
				case r.Status == http.StatusAccepted:
					accepted.Add(1)
				case r.Status != http.StatusTooManyRequests:
					tb.Errorf("status %d, want 202 or 429", r.Status)
				}
			})
		}
		requests.Wait()
		return accepted.Load()
	}
	for range rounds {
		awaitSamples(tb, s)
		out.One = append(out.One, ask(300, func(int) string { return "203.0.113.1" }))
		out.Next = append(out.Next, ask(1, func(int) string { return "203.0.113.2" }))
		out.Others = append(out.Others, ask(10, func(i int) string { return fmt.Sprint("198.51.100.", i) }))
		must(tb, s.Client.FlushAll(tb.Context()).Err())
	}
	return out
}

func (f Crowd) seen() string {
	return fmt.Sprintf("%v jobs of the one caller, %v of the next, %v of the ten others", f.One, f.Next, f.Others)
}

func (f Crowd) wrong() (wrong []string) {
	for round, n := range f.One {
		if n != maxPending/2 || f.Next[round] != 1 || f.Others[round] != 10 {
			wrong = append(wrong, fmt.Sprintf("round %d: %d, %d and %d jobs, want %d, 1 and 10", round, n, f.Next[round], f.Others[round], maxPending/2))
		}
	}
	return wrong
}

// late is for figures that depend on the machine; these don't.
func (Crowd) late() []string { return nil }
