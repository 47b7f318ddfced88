package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const rateLimited = `{"detail":"Too Many Requests"}`

// transports runs a test with the gate on TCP and on a unix socket.
func transports(t *testing.T, test func(t *testing.T, unix bool)) {
	for name, unix := range map[string]bool{"tcp": false, "unix": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, unix)
		})
	}
}

func TestBurstThenLimited(t *testing.T) {
	t.Parallel()
	transports(t, func(t *testing.T, unix bool) {
		const burst = 3
		s := e2e.Start(t, e2e.Options{Unix: unix, Settings: map[string]string{
			"RATE_LIMIT_RUN_BURST": fmt.Sprint(burst), "RATE_LIMIT_RUN_PER_MINUTE": "30",
		}})
		caller := e2e.Caller(t)
		for i := range burst {
			if r := s.Post(t, "/run", caller); r.Status != http.StatusAccepted {
				t.Fatalf("request %d of the burst: got %d %s, want 202", i+1, r.Status, r.Body)
			}
		}
		denied := s.Post(t, "/run", caller)
		wait := wantLimited(t, denied)

		if r := s.Post(t, "/run", e2e.Caller(t)); r.Status != http.StatusAccepted {
			t.Errorf("another caller: got %d, want 202", r.Status)
		}
		if r := s.Post(t, "/assistant", caller); r.Status != http.StatusOK {
			t.Errorf("the same caller's /assistant: got %d, want 200", r.Status)
		}

		e2e.Pass(t, wait)
		if r := s.Post(t, "/run", caller); r.Status != http.StatusAccepted {
			t.Errorf("after Retry-After: got %d %s, want 202", r.Status, r.Body)
		}
	})
}

func TestQueueFullThenDrained(t *testing.T) {
	t.Parallel()
	transports(t, func(t *testing.T, unix bool) {
		const maxPending = 5
		s := e2e.Start(t, e2e.Options{Unix: unix, Settings: queueSettings(maxPending)})
		s.Enqueue(t, e2e.Jobs{Count: maxPending - 1})
		waitPending(t, s, maxPending-1)
		if r := s.Post(t, "/assistant", e2e.Caller(t)); r.Status != http.StatusOK {
			t.Errorf("one below the limit: got %d, want 200", r.Status)
		}

		s.Enqueue(t, e2e.Jobs{Count: 1})
		waitPending(t, s, maxPending)
		for _, path := range []string{"/run", "/assistant"} {
			wantShed(t, path, s.Post(t, path, e2e.Caller(t)))
		}
		wantPing(t, s)

		s.StartWorker(t, 4)
		waitPending(t, s, 0)
		for path, want := range map[string]int{"/run": http.StatusAccepted, "/assistant": http.StatusOK} {
			if r := s.Post(t, path, e2e.Caller(t)); r.Status != want {
				t.Errorf("%s after the queue has drained: got %d %s, want %d", path, r.Status, r.Body, want)
			}
		}
	})
}

func TestQueueSlow(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Settings: queueSettings(40)})
	s.Enqueue(t, e2e.Jobs{Count: 1, Age: time.Hour})
	waitPending(t, s, 1)
	for _, path := range []string{"/run", "/assistant"} {
		wantShed(t, path, s.Post(t, path, e2e.Caller(t)))
	}
}

func TestGaugesFollowJob(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Settings: queueSettings(40)})
	waitGauges(t, s, func(pending, running, oldest float64) bool { return pending == 0 && running == 0 && oldest == 0 })
	s.Enqueue(t, e2e.Jobs{Count: 1, Seconds: 1000, Age: 20 * time.Second})
	waitGauges(t, s, func(pending, running, oldest float64) bool {
		return pending == 1 && running == 0 && oldest >= 20 && oldest < 120
	})
	worker := s.StartWorker(t, 1)
	waitGauges(t, s, func(pending, running, oldest float64) bool { return pending == 0 && running == 1 && oldest == 0 })
	// A worker that ends puts the job it ran back into the queue.
	worker.Stop(t)
	waitGauges(t, s, func(pending, running, _ float64) bool { return pending == 1 && running == 0 })
}

func TestPingWhenEverythingIsExhausted(t *testing.T) {
	t.Parallel()
	settings := queueSettings(2)
	settings["RATE_LIMIT_RUN_BURST"] = "1"
	s := e2e.Start(t, e2e.Options{Settings: settings})
	caller := e2e.Caller(t)
	s.Post(t, "/run", caller)
	wantLimited(t, s.Post(t, "/run", caller))
	s.Enqueue(t, e2e.Jobs{Count: 1, Age: time.Hour})
	waitPending(t, s, 2)
	wantShed(t, "/run", s.Post(t, "/run", caller))
	for range 20 {
		wantPing(t, s, caller)
	}
}

func TestTwoGatesShareOneLimit(t *testing.T) {
	t.Parallel()
	const burst = 4
	s := e2e.Start(t, e2e.Options{Gates: 2, Settings: map[string]string{
		"RATE_LIMIT_RUN_BURST": fmt.Sprint(burst), "RATE_LIMIT_RUN_PER_MINUTE": "1",
	}})
	caller := e2e.Caller(t)
	for i := range burst {
		if r := s.Envoys[i%2].Post(t, "/run", caller); r.Status != http.StatusAccepted {
			t.Fatalf("request %d: got %d %s, want 202", i+1, r.Status, r.Body)
		}
	}
	for i, envoy := range s.Envoys {
		if r := envoy.Post(t, "/run", caller); r.Status != http.StatusTooManyRequests {
			t.Errorf("gate %d after the shared burst: got %d, want 429", i, r.Status)
		}
	}
}

// queueSettings are quick samples, and buckets that don't get in the way.
func queueSettings(maxPending int) map[string]string {
	return map[string]string{
		"QUEUE_MAX_PENDING": fmt.Sprint(maxPending), "QUEUE_SAMPLE_INTERVAL": "100ms", "PROMETHEUS_QUEUE_POLL_INTERVAL": "100ms",
		"RATE_LIMIT_RUN_BURST": "100", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "100",
	}
}

func wantLimited(t *testing.T, r e2e.Response) time.Duration {
	t.Helper()
	if r.Status != http.StatusTooManyRequests || r.Body != rateLimited {
		t.Fatalf("over the limit: got %d %q, want 429 %q", r.Status, r.Body, rateLimited)
	}
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type: got %q, want application/json", got)
	}
	return r.RetryAfter(t)
}

func wantShed(t *testing.T, path string, r e2e.Response) {
	t.Helper()
	if r.Status != http.StatusServiceUnavailable {
		t.Errorf("%s: got %d %s, want 503", path, r.Status, r.Body)
		return
	}
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s content type: got %q, want application/json", path, got)
	}
	r.RetryAfter(t)
}

func wantPing(t *testing.T, s *e2e.Stack, headers ...string) {
	t.Helper()
	if r := s.Get(t, "/ping", headers...); r.Status != http.StatusOK {
		t.Errorf("/ping: got %d, want 200", r.Status)
	}
}

func waitPending(t *testing.T, s *e2e.Stack, want float64) {
	t.Helper()
	waitGauges(t, s, func(pending, _, _ float64) bool { return pending == want })
}

// waitGauges waits until every gate's queue gauges are as wanted.
func waitGauges(t *testing.T, s *e2e.Stack, want func(pending, running, oldest float64) bool) {
	t.Helper()
	polltest.Until(t, 30*time.Second, "the queue gauges", func() error {
		for _, g := range s.Gates {
			m := g.Metrics(t)
			pending, running, oldest := m["refrakt_queue_pending_jobs"], m["refrakt_queue_running_jobs"], m["refrakt_queue_oldest_pending_seconds"]
			if !want(pending, running, oldest) {
				return fmt.Errorf("pending %v, running %v, oldest %v s", pending, running, oldest)
			}
		}
		return nil
	})
}
