package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const (
	queued = "saq:default:queued"
	// patient settings make of a machine that stalls no outage, and have a window longer than a request takes to become
	// a job even on a busy one: beyond it nothing is promised.
	patientWindow, patientTimeout = "5s", "2s"
)

// startFleet starts three gates, each behind its own Envoy, before the real API. Only the queue stops requests.
func startFleet(tb testing.TB, settings map[string]string) *e2e.Stack {
	tb.Helper()
	all := map[string]string{
		"RATE_LIMIT_ENABLED": "false", "QUEUE_MAX_PENDING": fmt.Sprint(maxPending), "QUEUE_ADMISSION_WINDOW": patientWindow,
		"REDIS_TIMEOUT": patientTimeout, "QUEUE_FAILURE_MODE": "deny",
	}
	maps.Copy(all, settings)
	return e2e.Start(tb, e2e.Options{Gates: 3, Settings: all, Config: e2e.PatientConfig(tb)})
}

// Bursts is what became of many requests at once while nobody takes jobs, time after time.
type Bursts struct {
	Requests int
	Jobs     []int64 // in each round
	Accepted []int64 // requests, likewise
}

// PlayBursts sends 300 requests at once to three gates, so many times.
func PlayBursts(tb testing.TB, rounds int) Bursts {
	tb.Helper()
	b := Bursts{Requests: 300}
	s := startFleet(tb, nil)
	emptied := time.Now()
	for range rounds {
		polltest.Until(tb, 20*time.Second, "all gates to have looked at the empty queue", func() error {
			for _, g := range s.Gates {
				age := g.Metrics(tb)["refrakt_gate_queue_sample_age_seconds"]
				if age >= time.Since(emptied).Seconds() {
					return errors.New("one has not")
				}
			}
			return nil
		})
		e2e.Pass(tb, 100*time.Millisecond) // a request that found the queue full speaks for others for half of that
		var requests sync.WaitGroup
		var accepted atomic.Int64
		for i := range b.Requests {
			requests.Go(func() {
				if start(tb, s.Envoys[i%3], "") {
					accepted.Add(1)
				}
			})
		}
		requests.Wait()
		b.Jobs = append(b.Jobs, s.Client.LLen(tb.Context(), queued).Val())
		b.Accepted = append(b.Accepted, accepted.Load())
		must(tb, s.Client.FlushAll(tb.Context()).Err()) // the window too
		emptied = time.Now()
	}
	return b
}

func (b Bursts) wrong() (wrong []string) {
	for round, jobs := range b.Jobs {
		if jobs != maxPending || b.Accepted[round] != jobs {
			wrong = append(wrong, fmt.Sprintf("round %d: %d jobs, %d accepted, want %d", round, jobs, b.Accepted[round], maxPending))
		}
	}
	return wrong
}

func (b Bursts) seen() string {
	return fmt.Sprintf("%d to %d jobs each time; the limit is %d", slices.Min(b.Jobs), slices.Max(b.Jobs), maxPending)
}

// late is for figures that depend on the machine; these don't.
func (Bursts) late() []string { return nil }

// Drained is what became of more requests than workers can do.
type Drained struct {
	Deepest int64   // jobs that waited
	Idle    float64 // part of the looks at which none did
	// Jobs that were started in the same time behind the gates, and from a queue that is always full.
	Behind, Full float64
}

// PlayDrained has workers take 50 jobs a second, for this long behind the gates and for as long from a full queue,
// alternating and under the same requests, so that what slows the machine slows both.
func PlayDrained(tb testing.TB, d time.Duration) (out Drained) {
	tb.Helper()
	s := startFleet(tb, nil)
	s.StartWorker(tb, 10) // of 0.2 s each
	defer press(tb, s, 30, `{"seconds": 0.2}`)()
	const rounds = 2
	part := d / rounds
	for range rounds {
		s.Enqueue(tb, e2e.Jobs{Count: int(part.Seconds()*50) + 2*maxPending, Seconds: 0.2})
		full := watch(tb, s.Client, part)
		polltest.Until(tb, time.Minute, "the queue to be the gates' alone", func() error {
			if n := s.Client.LLen(tb.Context(), queued).Val(); n > maxPending {
				return fmt.Errorf("%d jobs", n)
			}
			return nil
		})
		behind := watch(tb, s.Client, part)
		out.Deepest = max(out.Deepest, behind.deepest)
		out.Idle += behind.idle / rounds
		out.Behind, out.Full = out.Behind+behind.started, out.Full+full.started
	}
	return out
}

// Admitted is the part of what workers can do that the gates let in.
func (d Drained) Admitted() float64 { return d.Behind / d.Full }

func (d Drained) seen() string {
	return fmt.Sprintf("at most %d waited; the queue was empty at %.1f %% of the looks; %.1f %% of what workers take from a queue that is always full was let in",
		d.Deepest, 100*d.Idle, 100*d.Admitted())
}

func (d Drained) wrong() (wrong []string) {
	if d.Deepest > maxPending {
		wrong = append(wrong, fmt.Sprintf("%d jobs waited, want %d at most", d.Deepest, maxPending))
	}
	return wrong
}

// late lists the targets that were missed; they are a matter of the machine too.
func (d Drained) late() (missed []string) {
	if d.Admitted() < 0.95 {
		missed = append(missed, fmt.Sprintf("%.1f %% of what workers can do was let in, the target is 95 %%", 100*d.Admitted()))
	}
	if d.Idle > 0.05 {
		missed = append(missed, fmt.Sprintf("the queue was empty at %.0f %% of the looks, the target is 5 %%", 100*d.Idle))
	}
	return missed
}

// Threshold is what was seen of a queue that moves around its limit.
type Threshold struct {
	For     time.Duration
	Changes int   // of the state that one gate shows
	Turned  int   // how often an /assistant got another answer than the one before
	Deepest int64 // jobs that waited
}

// PlayThreshold keeps the depth around the limit for so long: workers take a job, and at once another one comes.
func PlayThreshold(tb testing.TB, d time.Duration) Threshold {
	tb.Helper()
	out := Threshold{For: d}
	s := startFleet(tb, map[string]string{"PROMETHEUS_QUEUE_POLL_INTERVAL": "100ms"})
	s.StartWorker(tb, 4)
	defer press(tb, s, 10, `{"seconds": 0.2}`)()
	full := func() bool { return s.Gates[0].Metrics(tb)[`refrakt_gate_queue_state{state="full"}`] == 1 }
	polltest.Until(tb, time.Minute, "the queue to be full", func() error {
		if !full() {
			return errors.New("it is not")
		}
		return nil
	})
	was, passed := true, false
	for begin := time.Now(); time.Since(begin) < d; e2e.Pass(tb, 20*time.Millisecond) {
		if now := full(); now != was {
			was, out.Changes = now, out.Changes+1
		}
		if now := s.Post(tb, "/assistant").Status == http.StatusOK; now != passed {
			passed, out.Turned = now, out.Turned+1
		}
		out.Deepest = max(out.Deepest, s.Client.LLen(tb.Context(), queued).Val())
	}
	return out
}

func (t Threshold) seen() string {
	return fmt.Sprintf("the state changed %d times, the answer to `/assistant` %d times; at most %d waited", t.Changes, t.Turned, t.Deepest)
}

func (t Threshold) wrong() (wrong []string) {
	if t.Deepest > maxPending {
		wrong = append(wrong, fmt.Sprintf("%d jobs waited, want %d at most", t.Deepest, maxPending))
	}
	return wrong
}

// late lists the targets that were missed. `make test` holds them too: the callers ask far more than workers can do.
func (t Threshold) late() (missed []string) {
	if t.Changes > 4 || t.Turned > 4 {
		missed = append(missed, fmt.Sprintf("the state changed %d times, and the answer to /assistant %d times; the target is 4", t.Changes, t.Turned))
	}
	return missed
}

// press has callers ask for runs without end, whatever Retry-After says. The function it returns ends that.
func press(tb testing.TB, s *e2e.Stack, callers int, body string) func() {
	tb.Helper()
	ctx, stop := context.WithCancel(tb.Context())
	var asking sync.WaitGroup
	for i := range callers {
		asking.Go(func() {
			for ctx.Err() == nil {
				if !start(tb, s.Envoys[i%len(s.Envoys)], body) {
					wait(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	return func() { stop(); asking.Wait() }
}

// start asks for a run and says whether it was accepted.
func start(tb testing.TB, envoy *e2e.Envoy, body string) bool {
	r, err := envoy.Ask(tb.Context(), "/run", body)
	if err != nil {
		tb.Errorf("POST /run: %v", err)
	}
	return r.Status == http.StatusAccepted
}

// watched is what was seen of a queue for a while.
type watched struct {
	started float64 // jobs
	deepest int64
	idle    float64 // part of the looks at which none waited
}

// watch counts the jobs that workers start in this time, by what SAQ publishes, and looks at the depth.
func watch(tb testing.TB, client *redis.Client, d time.Duration) (w watched) {
	tb.Helper()
	sub := client.PSubscribe(tb.Context(), "saq:job:default:*")
	defer func() { _ = sub.Close() }()
	events := sub.Channel()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	done := time.NewTimer(d)
	defer done.Stop()
	looks, none := 0., 0.
	for {
		select {
		case event := <-events:
			if event.Payload == "active" {
				w.started++
			}
		case <-look.C:
			depth := client.LLen(tb.Context(), queued).Val()
			w.deepest = max(w.deepest, depth)
			looks++
			if depth == 0 {
				none++
			}
		case <-done.C:
			w.idle = none / looks
			return w
		}
	}
}
