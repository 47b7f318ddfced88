package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// window is longer than a request takes to become a job even on a machine that is busy with other tests: beyond it
// nothing is promised.
const window = "5s"

// TestAdmissionIsExact: 300 requests at once to three gates, and nobody takes jobs: the limit is reached and never passed.
func TestAdmissionIsExact(t *testing.T) {
	t.Parallel()
	const limit = 40
	s := e2e.Start(t, e2e.Options{Gates: 3, Settings: map[string]string{
		"RATE_LIMIT_ENABLED": "false", "QUEUE_MAX_PENDING": fmt.Sprint(limit), "QUEUE_ADMISSION_WINDOW": window,
		"REDIS_TIMEOUT": "2s", "QUEUE_FAILURE_MODE": "deny", // a machine that stalls is no outage here
	}})
	for round := range 3 {
		e2e.Poll(t, 20*time.Second, "all gates to see an empty queue, and the window to be over", func() error {
			for _, g := range s.Gates {
				if g.Metrics(t)[`refrakt_gate_queue_state{state="ok"}`] != 1 {
					return fmt.Errorf("one does not")
				}
			}
			return atMost(float64(s.Client.Exists(t.Context(), "refrakt:gate:admissions:default").Val()), 0)
		})
		var requests sync.WaitGroup
		var accepted atomic.Int64
		for i := range 300 {
			requests.Go(func() {
				if post(t, s.Envoys[i%3], "{}") == http.StatusAccepted {
					accepted.Add(1)
				}
			})
		}
		requests.Wait()
		depth := s.Client.LLen(t.Context(), "saq:default:queued").Val()
		t.Logf("round %d: %d jobs", round, depth)
		if depth > limit || depth < limit-2 || accepted.Load() != depth {
			t.Errorf("round %d: %d jobs, %d accepted, want %d to %d", round, depth, accepted.Load(), limit-2, limit)
		}
		s.Client.FlushAll(t.Context())
	}
}

// TestAdmissionWhileWorkersDrain: more requests than workers can do. The queue never holds more than the limit, and
// workers hardly ever find it empty. How many jobs they start then, against a queue that is always full, is logged only:
// it is a matter of the machine too.
func TestAdmissionWhileWorkersDrain(t *testing.T) {
	t.Parallel()
	const limit, seconds = 40, 10
	s := e2e.Start(t, e2e.Options{Gates: 3, Settings: map[string]string{
		"RATE_LIMIT_ENABLED": "false", "QUEUE_MAX_PENDING": fmt.Sprint(limit), "QUEUE_ADMISSION_WINDOW": window,
		"REDIS_TIMEOUT": "2s", "QUEUE_FAILURE_MODE": "deny", // a machine that stalls is no outage here
	}})
	s.StartWorker(t, 10) // 50 jobs a second, of 0.2 s each
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop()
	for i := range 30 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if post(t, s.Envoys[i%3], `{"seconds": 0.2}`) != http.StatusAccepted {
					pause(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	// Each way for half the time, in turn and under the same requests, so that what slows the machine slows both.
	var withGate, without float64
	for range 2 {
		s.Enqueue(t, e2e.Jobs{Count: seconds/2*50 + 2*limit, Seconds: 0.2})
		n, _, _ := drained(t, s, seconds/2*time.Second)
		without += n
		e2e.Poll(t, 60*time.Second, "the queue to be the gates' alone", func() error {
			return atMost(float64(s.Client.LLen(t.Context(), "saq:default:queued").Val()), limit)
		})
		n, deepest, idle := drained(t, s, seconds/2*time.Second)
		withGate += n
		if idle > 0.05 {
			t.Errorf("the queue was empty at %.0f %% of the looks, want at most 5 %%", 100*idle)
		}
		if deepest > limit {
			t.Errorf("%d jobs waited, want at most %d", deepest, limit)
		}
	}
	t.Logf("drained %.0f jobs behind the gate, %.0f from a queue that is always full: %.1f %%", withGate, without, 100*withGate/without)
}

// drained counts the jobs that workers start in this time, by what SAQ publishes, and tells how many waited at most,
// and at which part of the looks none did.
func drained(t *testing.T, s *e2e.Stack, d time.Duration) (started float64, deepest int64, idle float64) {
	t.Helper()
	sub := s.Client.PSubscribe(t.Context(), "saq:job:default:*")
	defer func() { _ = sub.Close() }()
	words := sub.Channel()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	done := time.NewTimer(d)
	defer done.Stop()
	looks, none := 0., 0.
	for {
		select {
		case w := <-words:
			if w.Payload == "active" {
				started++
			}
		case <-look.C:
			depth := s.Client.LLen(t.Context(), "saq:default:queued").Val()
			deepest = max(deepest, depth)
			looks++
			if depth == 0 {
				none++
			}
		case <-done.C:
			t.Logf("%.0f jobs started; at most %d waited, and none at %.0f of %.0f looks", started, deepest, none, looks)
			return started, deepest, none / looks
		}
	}
}

var quick = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 300}}

// post starts a run and returns the status.
func post(t *testing.T, envoy *e2e.Envoy, body string) int {
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, "http://"+envoy.Addr+"/run", strings.NewReader(body))
	if err != nil {
		t.Errorf("make request: %v", err)
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := quick.Do(req)
	if err != nil {
		t.Errorf("POST /run: %v", err)
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func atMost(got, want float64) error {
	if got > want {
		return fmt.Errorf("%v, want at most %v", got, want)
	}
	return nil
}
