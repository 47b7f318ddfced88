package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Priority is what became of premium callers, for whom a fifth of the queue is reserved, while plain ones ask for 12 times
// as much as workers can do.
type Priority struct {
	For            time.Duration
	Premium, Plain got
	Deepest        int64
	Behind, Full   float64 // jobs that were started, and from a queue that is always full
	// How often the state that one gate shows has changed: for plain callers, and whether the reserve is used up.
	Changes, UsedUp int
}

// reservedPart is the part of the queue that is reserved.
const reservedPart = 0.2

func startReserve(tb testing.TB) *e2e.Stack {
	tb.Helper()
	return startPolicies(tb, fmt.Sprintf(", reserve: {tiers: [premium], share: %g}", reservedPart), patientWindow)
}

// PlayPriority has premium callers offer half of the 20 jobs a second that workers do.
func PlayPriority(tb testing.TB, d time.Duration) Priority {
	tb.Helper()
	s := startReserve(tb)
	s.StartWorker(tb, 4) // of 0.2 s each
	const perSecond = 20
	var offers []offer
	for i := range 24 {
		offers = append(offers, offer{address: fmt.Sprint("198.51.100.", i), perSecond: 10})
	}
	for i := range 5 {
		offers = append(offers, offer{address: fmt.Sprint("203.0.113.", i), perSecond: 2, premium: true})
	}
	out := Priority{For: d}
	s.Enqueue(tb, e2e.Jobs{Count: int(d.Seconds()*perSecond) + 2*maxPending, Seconds: 0.2})
	out.Full = watch(tb, s.Client, d).started
	awaitDepth(tb, s, maxPending/2)

	ctx, stop := context.WithCancel(tb.Context())
	defer stop()
	done := make(chan []got)
	go func() { done <- makeOffers(ctx, tb, s, offers, 11) }()
	polltest.Until(tb, time.Minute, "plain callers to be shed", func() error {
		if s.Gates[0].Metrics(tb)[stateFull] != 1 {
			return fmt.Errorf("they are not")
		}
		return nil
	})
	var looking sync.WaitGroup
	looking.Go(func() { out.Changes, out.UsedUp = changes(ctx, tb, s.Gates[0]) })
	seen := watch(tb, s.Client, d)
	stop()
	looking.Wait()
	all := <-done
	for i, o := range offers {
		if o.premium {
			out.Premium = out.Premium.and(all[i])
		} else {
			out.Plain = out.Plain.and(all[i])
		}
	}
	out.Deepest, out.Behind = seen.deepest, seen.started
	return out
}

const (
	stateFull = `refrakt_gate_queue_state{queue="default",state="full"}`
	usedUp    = `refrakt_gate_queue_reserve_used_up{queue="default"}`
)

// changes counts how often what a gate shows of its queue changes until ctx ends.
func changes(ctx context.Context, tb testing.TB, g *e2e.Gate) (state, reserve int) {
	tb.Helper()
	before := g.Metrics(tb)
	for ctx.Err() == nil {
		now := g.Metrics(tb)
		if now[stateFull] != before[stateFull] {
			state++
		}
		if now[usedUp] != before[usedUp] {
			reserve++
		}
		before = now
		wait(ctx, 50*time.Millisecond)
	}
	return state, reserve
}

func (f Priority) seen() string {
	return fmt.Sprintf("%.2f %% of %d premium requests were accepted, and %d of %d plain ones; all together %.1f %% of what workers take from a queue that is always full; "+
		"at most %d waited; the state changed %d times for plain callers and %d times for premium ones",
		100*f.Premium.part(), f.Premium.asked, f.Plain.accepted, f.Plain.asked, 100*f.Behind/f.Full, f.Deepest, f.Changes, f.UsedUp)
}

func (f Priority) wrong() (wrong []string) {
	if f.Deepest > maxPending {
		wrong = append(wrong, fmt.Sprintf("%d jobs waited, want %d at most", f.Deepest, maxPending))
	}
	if f.Premium.part() < 0.9 { // workers that stall for a second do not bring that about
		wrong = append(wrong, fmt.Sprintf("%.1f %% of the premium requests were accepted", 100*f.Premium.part()))
	}
	if f.Plain.full == 0 || f.Premium.asked == 0 {
		wrong = append(wrong, "nobody was refused, or nobody asked: nothing was put to the test")
	}
	return wrong
}

// late lists the targets that were missed.
func (f Priority) late() (missed []string) {
	if f.Premium.part() < 0.994 {
		missed = append(missed, fmt.Sprintf("%.2f %% of the premium requests were accepted, the target is 99.4 %%", 100*f.Premium.part()))
	}
	if f.Behind < 0.95*f.Full {
		missed = append(missed, fmt.Sprintf("%.1f %% of what workers can do was let in, the target is 95 %%", 100*f.Behind/f.Full))
	}
	if f.Changes > 4 || f.UsedUp > 4 {
		missed = append(missed, fmt.Sprintf("the state changed %d times for plain callers and %d times for premium ones, the target is 4", f.Changes, f.UsedUp))
	}
	return missed
}

// TwoBursts is what became of 300 plain requests at once and then of 300 premium ones, while nobody takes jobs.
type TwoBursts struct{ Plain, Both []int64 } // jobs, in each round

// PlayTwoBursts plays so many rounds.
func PlayTwoBursts(tb testing.TB, rounds int) (out TwoBursts) {
	tb.Helper()
	s := startReserve(tb)
	burst := func(headers ...string) int64 {
		var requests sync.WaitGroup
		for i := range 300 {
			requests.Go(func() {
				if _, err := s.Envoys[i%3].Ask(tb.Context(), "/run", "", headers...); err != nil {
					tb.Error(err)
				}
			})
		}
		requests.Wait()
		return s.Client.LLen(tb.Context(), queued).Val()
	}
	for range rounds {
		awaitSamples(tb, s)
		out.Plain = append(out.Plain, burst())
		out.Both = append(out.Both, burst("X-RateLimit-Tier: premium"))
		must(tb, s.Client.FlushAll(tb.Context()).Err())
	}
	return out
}

// awaitSamples waits until all gates have looked at the queue as it is now, and no refusal speaks for others any more.
func awaitSamples(tb testing.TB, s *e2e.Stack) {
	tb.Helper()
	since := time.Now()
	polltest.Until(tb, 20*time.Second, "all gates to have looked at the queue", func() error {
		for _, g := range s.Gates {
			if age := g.Metrics(tb)[`refrakt_gate_queue_sample_age_seconds{queue="default"}`]; age >= time.Since(since).Seconds() {
				return fmt.Errorf("one has not")
			}
		}
		return nil
	})
	e2e.Pass(tb, 100*time.Millisecond)
}

func (f TwoBursts) seen() string {
	return fmt.Sprintf("%v jobs after the plain ones, %v after the premium ones; the limits are %v and %v", f.Plain, f.Both, plainPending, maxPending)
}

// plainPending is the threshold of plain callers.
const plainPending = maxPending * (1 - reservedPart)

func (f TwoBursts) wrong() (wrong []string) {
	for round, n := range f.Plain {
		if n != plainPending || f.Both[round] != maxPending {
			wrong = append(wrong, fmt.Sprintf("round %d: %d and %d jobs, want %v and %d", round, n, f.Both[round], plainPending, maxPending))
		}
	}
	return wrong
}

// late is for figures that depend on the machine; these don't.
func (TwoBursts) late() []string { return nil }
