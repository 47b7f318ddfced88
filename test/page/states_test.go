package page

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// scene is a gate whose page is open.
type scene struct {
	gate *e2e.Gate
	tab  *Tab
}

func open(t *testing.T, gate *e2e.Gate) scene {
	t.Helper()
	return scene{gate, Open(t, addressOf(gate), 1100, 900)}
}

// says waits until the page has these headlines (or what they begin with), and lists what /readyz lists. Then it
// compares the numbers with the metrics.
func (s scene) says(t *testing.T, headlines ...string) {
	t.Helper()
	polltest.Until(t, 30*time.Second, fmt.Sprintf("the page to say %q", headlines), func() error {
		look := func() (Seen, error) {
			s.tab.Refresh(t)
			seen := s.tab.Look(t)
			if !slices.EqualFunc(seen.Headlines, headlines, strings.HasPrefix) {
				return seen, fmt.Errorf("it says %q", seen.Headlines)
			}
			return seen, nil
		}
		if _, err := look(); err != nil { // the rest is dear
			return err
		}
		ready, metrics := troubles(t, s.gate), s.gate.Metrics(t)
		seen, err := look()
		if err != nil {
			return err
		}
		if !slices.Equal(ready, troubles(t, s.gate)) {
			return fmt.Errorf("/readyz changes: %q", ready)
		}
		if !slices.Equal(seen.Troubles, ready) {
			return fmt.Errorf("it lists %q, /readyz lists %q", seen.Troubles, ready)
		}
		after := s.gate.Metrics(t)
		for _, n := range seen.Numbers {
			value, err := strconv.ParseFloat(n.Value, 64)
			if err != nil {
				return fmt.Errorf("%+v is no number", n)
			}
			if was := metrics[n.Series]; same(was, after[n.Series]) && !same(was, value) {
				return fmt.Errorf("%s is %v, the page says %v", n.Series, was, value)
			}
		}
		return nil
	})
}

// troubles is what /readyz lists.
func troubles(t *testing.T, gate *e2e.Gate) []string {
	t.Helper()
	var answer struct{ Reasons, Degraded []string }
	if r := gate.Get(t, "/readyz"); json.Unmarshal([]byte(r.Body), &answer) != nil {
		t.Fatalf("/readyz: %d %s", r.Status, r.Body)
	}
	return append(answer.Reasons, answer.Degraded...)
}

// ask has the gate decide about a request.
func (s scene) ask(t *testing.T) {
	t.Helper()
	e2e.RunGate(t, map[string]string{"GRPC_ADDR": s.gate.GRPC}, "check", "--path", "/run", "--ip", "203.0.113.9")
}

const (
	healthy      = "Healthy"
	noWorker     = "The queue has jobs that wait, and no worker is alive"
	shadowOfBoth = "Checks in shadow mode, which deny nothing: 2"
)

// slowly is a chart that has more than one value, which only time brings about.
var slowly = regexp.MustCompile(`class="line" d="M[^"]*L`)

// TestStates: the page is right in each state that the faults of test/chaos bring about, and in those of files and
// collectors that can't be used.
func TestStates(t *testing.T) {
	t.Parallel()
	// Denials and jobs of tests are not what this is about.
	base := map[string]string{"QUEUE_STALE_AFTER": "1500ms", "RATE_LIMIT_RUN_BURST": "1000", "QUEUE_MAX_PENDING": "3"}
	with := func(more map[string]string) map[string]string {
		settings := maps.Clone(base)
		maps.Copy(settings, more)
		return settings
	}
	play := func(name string, play func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { t.Parallel(); play(t) })
	}
	play("starting", func(t *testing.T) {
		s := open(t, e2e.LaunchGate(t, with(map[string]string{"QUEUE_URL": "unix://" + filepath.Join(t.TempDir(), "none")})))
		s.says(t, "Not ready: starting: ping Redis: ", "Degraded: queue: state unknown")
	})
	play("queue", func(t *testing.T) {
		redis := redistest.Start(t)
		s := open(t, e2e.StartGate(t, with(map[string]string{"QUEUE_URL": redis.URL()})))
		s.says(t, healthy)
		e2e.Enqueue(t, redis.URL(), e2e.Jobs{Count: 3})
		s.says(t, "The queue is full: new jobs get 503", noWorker)
		if err := redis.Client(t).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		s.says(t, healthy)
		e2e.Enqueue(t, redis.URL(), e2e.Jobs{Count: 1, Age: time.Hour})
		s.says(t, "The queue is slow: new jobs get 503", noWorker)
		polltest.True(t, "the gate to keep what the charts show", func() bool {
			return slowly.MatchString(s.gate.Get(t, "/").Body)
		})
	})
	for mode, queueMode := range map[string]string{"local": "allow", "allow": "allow", "deny": "deny"} {
		play("Redis is gone, "+mode, func(t *testing.T) {
			redis := redistest.Start(t)
			s := open(t, e2e.StartGate(t, with(map[string]string{"QUEUE_URL": redis.URL(), "RATE_LIMIT_FAILURE_MODE": mode, "QUEUE_FAILURE_MODE": queueMode})))
			s.says(t, healthy)
			if mode == "deny" { // it hangs
				if err := syscall.Kill(redis.PID(), syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			} else {
				redis.Kill()
			}
			polltest.True(t, "the breaker to open", func() bool {
				s.ask(t)
				return s.gate.Metrics(t)[`refrakt_gate_breaker_open{breaker="limiter"}`] == 1
			})
			s.says(t, "Degraded: 2 things do not work as they should")
			for _, line := range []string{"limiter: Redis is not asked, RATE_LIMIT_FAILURE_MODE=" + mode + " decides", "queue: state unknown, QUEUE_FAILURE_MODE=" + queueMode + " decides"} {
				if seen := s.tab.Look(t).Troubles; !slices.Contains(seen, line) {
					t.Errorf("%q is not in %q", line, seen)
				}
			}
			if mode == "deny" {
				if err := syscall.Kill(redis.PID(), syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			} else {
				redis.Restart()
			}
			s.says(t, healthy)
		})
	}
	play("files", func(t *testing.T) {
		policies, token := filepath.Join(t.TempDir(), "policies.yaml"), filepath.Join(t.TempDir(), "token")
		const good = "policies:\n  run: {match: [/run], buckets: [{per: ip, burst: 5, rate: 6/m}]}\n"
		put(t, policies, good)
		put(t, token, "s3cret")
		s := scene{gate: e2e.StartGate(t, map[string]string{"POLICY_FILE": policies, "PROMETHEUS_BEARER_TOKEN_FILE": token})}
		page := func() (status int, body string) {
			r := s.gate.Get(t, "/", "Authorization: Bearer s3cret")
			return r.Status, r.Body
		}
		wants := func(headline string) {
			t.Helper()
			polltest.Until(t, 20*time.Second, headline, func() error {
				if status, body := page(); status != http.StatusOK || !strings.Contains(body, ">"+headline) {
					return fmt.Errorf("%d %.2000s", status, body)
				}
				return nil
			})
		}
		wants(healthy)
		put(t, policies, "policies: 5\n")
		wants("Degraded: policies: POLICY_FILE can&#39;t be used")
		put(t, policies, strings.ReplaceAll(good, "run", "learn"))
		wants(healthy)
		if _, body := page(); strings.Contains(body, `data-policy="run"`) || !strings.Contains(body, `data-policy="learn"`) || !strings.Contains(body, "learn: /learn; no queue") {
			t.Error("the page has not followed the file")
		}
		if err := os.Remove(token); err != nil {
			t.Fatal(err)
		}
		wants(healthy)
		put(t, token, "another")
		if status, _ := page(); status != http.StatusUnauthorized {
			t.Errorf("with the token of before: %d", status)
		}
	})
	play("traces are lost", func(t *testing.T) {
		s := open(t, e2e.StartGate(t, with(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "500"})))
		s.ask(t)
		s.says(t, "Degraded: traces: the collector does not take them")
	})
	play("shadow", func(t *testing.T) {
		redis, file := redistest.Start(t), filepath.Join(t.TempDir(), "switches")
		s := open(t, e2e.StartGate(t, with(map[string]string{"QUEUE_URL": redis.URL(), "SWITCHES_FILE": file})))
		put(t, file, "QUEUE_SHADOW=true\n")
		s.says(t, healthy, shadowOfBoth)
		e2e.Enqueue(t, redis.URL(), e2e.Jobs{Count: 3})
		s.says(t, noWorker, "The queue is full, but no policy enforces that: requests pass", shadowOfBoth)
		put(t, file, "QUEUE_SHADOW=perhaps\n")
		s.says(t, "Degraded: switches: SWITCHES_FILE can't be used", noWorker, "The queue is full, but no policy enforces that: requests pass", shadowOfBoth)
	})
	play("stopping", func(t *testing.T) {
		s := open(t, e2e.StartGate(t, with(map[string]string{"SHUTDOWN_DRAIN": "30s"})))
		s.says(t, healthy)
		s.gate.Signal(t, syscall.SIGTERM)
		s.says(t, "Stopping: the process was told to stop")
		s.gate.Kill(t) // the drain lasts longer than a test waits
	})
}
