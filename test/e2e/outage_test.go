package e2e_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// traffic asks for /assistant without pause until stopped, from several callers, and notes each kind of answer.
type traffic struct {
	stop    atomic.Bool
	callers sync.WaitGroup

	mu      sync.Mutex
	answers map[string]int // "200", "503 reason", "error …"
}

func startTraffic(t *testing.T, s *e2e.Stack) *traffic {
	t.Helper()
	tr := &traffic{answers: make(map[string]int)}
	for range 8 {
		name, value, _ := strings.Cut(e2e.Caller(t), ": ")
		tr.callers.Go(func() {
			client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for !tr.stop.Load() {
				tr.note(ask(t, client, "http://"+s.Addr+"/assistant", name, value))
			}
		})
	}
	t.Cleanup(func() { tr.end() })
	return tr
}

func ask(t *testing.T, client *http.Client, url, name, value string) string {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		return "error " + err.Error()
	}
	req.Header.Set(name, value)
	resp, err := client.Do(req)
	if err != nil {
		return "error " + err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "error " + err.Error()
	}
	if resp.StatusCode == http.StatusOK {
		return "200"
	}
	// Envoy's own answer to a gate that did not answer has no body.
	return fmt.Sprintf("%d %s, Retry-After %t", resp.StatusCode, body, resp.Header.Get("Retry-After") != "")
}

func (tr *traffic) note(answer string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.answers[answer]++
}

func (tr *traffic) count(answer string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.answers[answer]
}

// end stops the callers and returns what they got.
func (tr *traffic) end() map[string]int {
	tr.stop.Store(true)
	tr.callers.Wait()
	return tr.answers
}

const (
	noLimiter = `503 {"detail":"The rate limiter is unavailable. Please retry later."}, Retry-After true`
	noQueue   = `503 {"detail":"The state of the job queue is unknown. Please retry later."}, Retry-After true`
)

// roomy buckets stay out of the way of the traffic; the queue is looked at often.
func roomy(more map[string]string) map[string]string {
	settings := map[string]string{
		"RATE_LIMIT_ASSISTANT_BURST": "1000000", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "10000", "RATE_LIMIT_RUN_BURST": "2",
		"QUEUE_SAMPLE_INTERVAL": "100ms", "QUEUE_STALE_AFTER": "600ms", "PROMETHEUS_QUEUE_POLL_INTERVAL": "100ms",
	}
	maps.Copy(settings, more)
	return settings
}

// TestRedisKilledUnderTraffic kills Redis and starts it again while requests come in: each is answered by the gate,
// by the failure mode while Redis is away, and nobody has to do anything for the recovery.
func TestRedisKilledUnderTraffic(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		settings map[string]string
		away     string // the answer while Redis is away
		limiter  bool   // whether the limiter's Redis is the one that counts
	}{
		"local":      {map[string]string{"RATE_LIMIT_FAILURE_MODE": "local"}, "200", true},
		"allow":      {map[string]string{"RATE_LIMIT_FAILURE_MODE": "allow"}, "200", true},
		"deny":       {map[string]string{"RATE_LIMIT_FAILURE_MODE": "deny"}, noLimiter, true},
		"queue deny": {map[string]string{"QUEUE_FAILURE_MODE": "deny"}, noQueue, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := e2e.Start(t, e2e.Options{Config: e2e.PatientConfig(t), Settings: roomy(tt.settings)})
			gate := s.Gates[0]
			tr := startTraffic(t, s)
			more := func(what, answer string) {
				t.Helper()
				start := tr.count(answer)
				polltest.Until(t, 30*time.Second, what, func() error {
					if n := tr.count(answer) - start; n < 50 {
						return fmt.Errorf("%d of 50 answers %q", n, answer)
					}
					return nil
				})
			}
			degraded := func(want bool) {
				t.Helper()
				polltest.Until(t, 30*time.Second, fmt.Sprintf("degraded to be %v", want), func() error {
					m, ready := gate.Metrics(t), gate.Get(t, "/readyz")
					active := m["refrakt_gate_fallback_active"] == 1
					unknown := m[`refrakt_gate_queue_state{state="unknown"}`] == 1
					if ready.Status != http.StatusOK {
						t.Fatalf("/readyz: got %d %s, want 200 all the time", ready.Status, ready.Body)
					}
					if active != want || unknown != want || strings.Contains(ready.Body, "degraded") != want {
						return fmt.Errorf("fallback active %v, queue unknown %v, /readyz %s", active, unknown, ready.Body)
					}
					return nil
				})
			}

			more("answers with Redis", "200")
			degraded(false)
			s.Redis.Kill()
			degraded(true)
			more("answers without Redis", tt.away)
			if name == "local" {
				wantLocalLimit(t, s)
			}
			s.Redis.Restart()
			degraded(false)
			more("answers with Redis again", "200")
			polltest.Until(t, 10*time.Second, "buckets in Redis", func() error {
				keys, err := s.Client.Keys(t.Context(), "refrakt:gate:bucket:assistant:ip:*").Result()
				if err == nil && len(keys) == 0 {
					return fmt.Errorf("none")
				}
				return err
			})
			for answer, n := range tr.end() {
				if answer != "200" && answer != tt.away {
					t.Errorf("%d times: %s", n, answer)
				}
			}
			// Once a change, not once a request; a machine that stalls may add a change of its own.
			for lost, back := range map[string]string{
				`Redis lost: requests are decided without it","breaker":"limiter"`: `Redis is back: requests ask it again","breaker":"limiter"`,
				"queue sampling fails": "queue sampling works again",
			} {
				n, m := strings.Count(gate.Log(), lost), strings.Count(gate.Log(), back)
				if n == 0 || n != m || n > 5 {
					t.Errorf("%q is logged %d times, %q %d times; want a line for each change", lost, n, back, m)
				}
			}
		})
	}
}

// wantLocalLimit checks that a caller is limited though Redis is away.
func wantLocalLimit(t *testing.T, s *e2e.Stack) {
	t.Helper()
	caller := e2e.Caller(t)
	const path = "/run/none" // guarded, but no job of the API's, whose Redis is away too
	for range 2 {
		if r := s.Post(t, path, caller); r.Status != http.StatusNotFound {
			t.Errorf("within the burst: got %d %s, want the API's 404", r.Status, r.Body)
		}
	}
	wantLimited(t, s.Post(t, path, caller))
}

// TestRedisFrozen stops Redis without closing its connections: requests wait for it, and soon no more.
func TestRedisFrozen(t *testing.T) {
	t.Parallel()
	s := e2e.Start(t, e2e.Options{Config: e2e.PatientConfig(t), Settings: roomy(nil)})
	tr := startTraffic(t, s)
	gate := s.Gates[0]
	pid := s.Redis.PID()
	polltest.Until(t, 30*time.Second, "answers", func() error {
		if tr.count("200") < 50 {
			return fmt.Errorf("%d", tr.count("200"))
		}
		return nil
	})
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	active := func(want float64) {
		t.Helper()
		polltest.Until(t, 30*time.Second, "refrakt_gate_fallback_active", func() error {
			if got := gate.Metrics(t)["refrakt_gate_fallback_active"]; got != want {
				return fmt.Errorf("got %v, want %v", got, want)
			}
			return nil
		})
	}
	active(1)
	before, errors := tr.count("200"), gate.Metrics(t)["refrakt_gate_limiter_errors_total"]
	polltest.Until(t, 30*time.Second, "answers without Redis", func() error {
		if n := tr.count("200") - before; n < 200 {
			return fmt.Errorf("%d of 200", n)
		}
		return nil
	})
	// The callers that were under way when the breaker opened may still have been counted after it.
	if now := gate.Metrics(t)["refrakt_gate_limiter_errors_total"]; now-errors > 8 {
		t.Errorf("%v requests asked the frozen Redis though the breaker was open", now-errors)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	active(0)
	for answer, n := range tr.end() {
		if answer != "200" {
			t.Errorf("%d times: %s", n, answer)
		}
	}
}
