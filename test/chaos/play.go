package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Fault is one thing that can go wrong.
type Fault struct {
	Name string
	What string // what is done, for the report
	// Prepare is done before; nil: nothing.
	Prepare func(testing.TB, *World)
	// Hurt brings it about, Heal ends it; each returns when that is done. A nil Heal: it ends by itself.
	Hurt, Heal func(testing.TB, *World)
	// Away says that the buckets' Redis can't be asked meanwhile, so that the breakers open.
	Away bool
	// Lost says that nobody may be there to answer meanwhile: the gate itself is hurt, or Envoy.
	Lost bool
	// Buckets is how often, at most, a caller finds a full bucket: 1, and one more for each replica that decides by
	// buckets of its own, and for a Redis that forgets. 0 is 1.
	Buckets int
	// Itself says that it ends by itself, as soon as Heal returns.
	Itself bool
	// Denies says that the failure modes deny everything meanwhile.
	Denies bool
	// Slow says that jobs may look older than they are: Redis's clock is ahead of the API's.
	Slow bool
	// Emptied says that a bucket may be found empty that was not: Redis's clock was set back.
	Emptied bool
	// Answers says that Redis answers, though with errors: the queue's breaker need not open.
	Answers bool
	// Beyond says that jobs may go over the limit: the gate can't see the queue to which the API still adds.
	Beyond bool
}

// Pace is how long each part of a fault lasts.
type Pace func(testing.TB, *traffic)

// Timed lets each part last so long.
func Timed(d time.Duration) Pace {
	return func(tb testing.TB, _ *traffic) { tb.Helper(); e2e.Pass(tb, d) }
}

// Counted lets each part last for so many answers.
func Counted(n int) Pace {
	return func(tb testing.TB, tr *traffic) {
		tb.Helper()
		start := tr.answers()
		polltest.Until(tb, time.Minute, fmt.Sprint(n, " answers"), func() error {
			if got := tr.answers() - start; got < n {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
}

// Figures is what was measured of one fault.
type Figures struct {
	Fault Fault
	// Answers are those of requests that came while it lasted, by kind.
	Answers map[string]int
	// Unanswered are the requests, of all parts, that no gate decided: Envoy answered in its place, or nobody did.
	Unanswered int
	// Longest is the longest that Envoy waited for an answer of the gate, over all parts.
	Longest time.Duration
	// With the breakers open: how many Checks there were, and how long they took as the gates measure it and as Envoy
	// does; and how long a Check took beside one about which the gate asks nobody.
	Open     int
	Under5ms float64
	OpenP99  time.Duration
	Pairs    Pairs
	// Recovered is the time from the end of the fault until the gates decide by Redis again.
	Recovered time.Duration
	// Deepest is the most jobs that waited; Over are requests beyond a plain caller's buckets; Stopped are denials of
	// callers with tokens enough.
	Deepest       int64
	Over, Stopped int
	// Missed are the requests that were decided without Redis though Redis was not hurt. Stall is the longest time for
	// which the machine gave a process no processor: this one, and where Redis is not hurt the gate and Redis. Idle the longest that a Check took about which the gate asks nobody.
	Missed      int
	Stall, Idle time.Duration
}

// Play has the fault happen under traffic.
func (w *World) Play(tb testing.TB, f Fault, pace Pace) Figures {
	tb.Helper()
	out := Figures{Fault: f}
	w.ensureWorker(tb)
	if f.Prepare != nil {
		f.Prepare(tb, w)
	}
	missed := w.missed(tb)
	tr := w.start(tb)
	deepest := w.watchDepth(tb)
	stall := watchStalls(tb)
	idle := asksNobody(tb, w.Gates[0], openWait)

	begun := time.Now()
	pace(tb, tr)
	hurt := time.Now()
	f.Hurt(tb, w)
	pairs := func() Pairs { return Pairs{} }
	if f.Away {
		w.awaitOpen(tb, !f.Answers && w.Cluster == nil)
		over := openWait
		if w.Cluster != nil {
			over = firstWait / 2 // callers with buckets on other servers ask these
		}
		pairs = asksNobody(tb, w.Gates[0], over)
	}
	open, before := time.Now(), w.checks(tb)
	w.lookAtPages(tb)
	if !f.Itself {
		pace(tb, tr)
		out.Pairs = pairs()
	}
	shut, after := time.Now(), w.checks(tb)
	if f.Heal != nil {
		f.Heal(tb, w)
	}
	healed := time.Now()
	if f.Itself {
		shut, after = healed, w.checks(tb)
		out.Pairs = pairs()
	}
	polltest.Until(tb, time.Minute, "the gates to decide by Redis", func() error {
		if w.degraded(tb) {
			return errors.New("one does not")
		}
		return nil
	})
	w.awaitAnswers(tb)
	out.Recovered = time.Since(healed)
	w.lookAtPages(tb)
	pace(tb, tr)
	tr.end()
	ended := time.Now()

	depth, slowest := deepest()
	out.Deepest, out.Stall, out.Idle = depth, stall(), idle().Longest
	if !f.Away {
		out.Stall = max(out.Stall, out.Idle, slowest) // of the gate and of Redis
		for g, n := range w.missed(tb) {
			out.Missed += int(n - missed[g])
		}
	}
	buckets := max(1, f.Buckets)
	if out.Missed > 0 {
		buckets += len(w.Gates)
	}
	out.Unanswered, out.Stopped, out.Over = tr.unanswered(), tr.wronglyStopped(), tr.over(buckets)
	w.settleLog(tb)
	out.Answers = make(map[string]int)
	for _, a := range w.logged(hurt, healed) {
		out.Answers[a.kind()]++
	}
	for _, a := range w.logged(begun, ended) {
		out.Longest = max(out.Longest, a.check())
	}
	if f.Away {
		var took []time.Duration
		for _, a := range w.logged(open, shut) {
			took = append(took, a.check())
		}
		out.OpenP99 = percentile(took, 0.99)
		out.Open = int(after.all - before.all)
		if out.Open > 0 {
			out.Under5ms = (after.quick - before.quick) / float64(out.Open)
		}
	}
	return out
}

// wrong lists what must not be, whatever the machine's speed. patience is REDIS_TIMEOUT.
func (f Figures) wrong(patience time.Duration) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	// Only a machine that stalls makes Redis late that is not hurt. A quarter of the time is enough: stalls add up.
	if f.Missed > 0 && f.Stall < patience/4 {
		add("%d requests were decided without Redis, which was not hurt, and the machine stalled for %v at most", f.Missed, round(f.Stall))
	}
	if f.Unanswered > 0 && !f.Fault.Lost {
		add("%d requests got no answer of the gate", f.Unanswered)
	}
	for kind, n := range f.Answers {
		if strings.HasPrefix(kind, "503 ") && !f.Fault.expects(kind) {
			add("%d answers %q", n, kind)
		}
	}
	if f.Over > 0 {
		add("a caller got %d requests more than its buckets hold", f.Over)
	}
	if f.Stopped > 0 && !f.Fault.Emptied && !f.Fault.Denies {
		add("%d requests of callers with tokens enough were denied", f.Stopped)
	}
	most := int64(maxPending)
	if f.Fault.Away || f.Missed > 0 { // those under way at its end were let through unseen
		most += runners
	}
	if f.Deepest > most && !f.Fault.Beyond {
		add("%d jobs waited, want %d at most", f.Deepest, most)
	}
	return wrong
}

// expects says whether a 503 of this kind may come while the fault lasts.
func (f Fault) expects(kind string) bool {
	switch kind {
	case "503 queue_full", ofAPI(http.StatusServiceUnavailable):
		return true
	case unanswered:
		return f.Lost
	case "503 queue_slow":
		return f.Slow
	case "503 limiter_unavailable", "503 queue_unknown":
		return f.Denies
	default:
		return false
	}
}

// missed is how often each gate did not have an answer of Redis.
func (w *World) missed(tb testing.TB) map[*e2e.Gate]float64 {
	tb.Helper()
	missed := make(map[*e2e.Gate]float64)
	for _, g := range w.Gates {
		m := g.Metrics(tb)
		missed[g] = m["refrakt_gate_fallback_total"] + m[`refrakt_gate_queue_errors_total{op="admit"}`]
	}
	return missed
}

// checkCounts are how many Checks gates have answered, and how many of them within 5 ms.
type checkCounts struct{ all, quick float64 }

func (w *World) checks(tb testing.TB) (c checkCounts) {
	tb.Helper()
	for _, g := range w.Gates {
		if !g.Running() {
			continue
		}
		h := g.Histogram(tb, "refrakt_gate_check_duration_seconds")
		c.all += float64(h.GetSampleCount())
		for _, b := range h.GetBucket() {
			if b.GetUpperBound() == 0.005 {
				c.quick += float64(b.GetCumulativeCount())
			}
		}
	}
	return c
}

// watchDepth looks at the queue all the time. The function it returns ends that and gives the most jobs that waited, and
// how long the slowest look took that was answered.
func (w *World) watchDepth(tb testing.TB) func() (deepest int64, slowest time.Duration) {
	tb.Helper()
	ctx, stop := context.WithCancel(tb.Context())
	var watching sync.WaitGroup
	var deepest int64
	var slowest time.Duration
	watching.Go(func() {
		for ; ctx.Err() == nil; wait(ctx, 5*time.Millisecond) {
			ask, cancel := context.WithTimeout(ctx, time.Second)
			begin := time.Now()
			if n, err := w.Direct.LLen(ask, "saq:default:queued").Result(); err == nil {
				deepest, slowest = max(deepest, n), max(slowest, time.Since(begin))
			}
			cancel()
		}
	})
	tb.Cleanup(func() { stop(); watching.Wait() })
	return func() (int64, time.Duration) { stop(); watching.Wait(); return deepest, slowest }
}

// settleLog waits until Envoy has written all there is: it writes now and then.
func (w *World) settleLog(tb testing.TB) {
	tb.Helper()
	mark := fmt.Sprintf("/settled-%d", time.Now().UnixNano())
	w.Envoy().Get(tb, mark)
	polltest.Until(tb, 10*time.Second, "Envoy's log", func() error {
		if !strings.Contains(w.Envoy().Log(), mark) {
			return errors.New("not written yet")
		}
		return nil
	})
}

// answersText lists the answers by kind.
func (f Figures) answersText() string {
	parts := make([]string, 0, len(f.Answers))
	for _, kind := range slices.Sorted(maps.Keys(f.Answers)) {
		parts = append(parts, fmt.Sprintf("%d × %s", f.Answers[kind], kind))
	}
	return strings.Join(parts, ", ")
}
