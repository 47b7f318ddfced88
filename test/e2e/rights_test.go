package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestGateWithTheDocumentedRights: a whole gate works under exactly the ACL line of
// docs/configuration.md, jobs counted and nothing denied. Without the channel the gate
// says so, and goes on.
func TestGateWithTheDocumentedRights(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ACL SETUSER refrakt-gate .*$`).FindString(string(text))
	if line == "" {
		t.Fatal("docs/configuration.md has no line ACL SETUSER refrakt-gate")
	}
	server := redistest.Start(t)
	admin := server.Client(t)
	var args []any
	for word := range strings.FieldsSeq(line) {
		args = append(args, word)
	}
	if err := admin.Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("paste the line: %v", err)
	}
	gate := e2e.StartGate(t, map[string]string{
		"QUEUE_URL": "unix://refrakt-gate:PASSWORD@" + server.Socket, "RATE_LIMIT_RUN_BURST": "3",
	})
	api := e2e.StartAPI(t, server.URL())
	envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, api.Addr, gate.GRPC)
	caller := e2e.Caller(t)
	for range 3 {
		if r := envoy.Post(t, "/run", caller); r.Status != http.StatusAccepted {
			t.Errorf("/run: got %d %s, want 202", r.Status, r.Body)
		}
	}
	wantLimited(t, envoy.Post(t, "/run", caller))

	e2e.StartWorker(t, server.URL(), admin, 4)
	work := proctest.Start(t, proctest.Command{
		Name: "workload", Path: e2e.Tool(t, "python"), Env: []string{"PYTHONUNBUFFERED=1"},
		Args: []string{filepath.Join(e2e.Root(), "jobmetrics/testdata/saq_workload.py"), server.URL(), "other", "20", "0"},
	})
	work.WaitLog(t, regexp.MustCompile(`(?m)^\{.*\}$`)) // another queue's: none of this gate's business
	polltest.Until(t, time.Minute, "the jobs to be counted to their end", func() error {
		m := gate.Metrics(t)
		if n := m[`refrakt_job_enqueued_total{source="api"}`]; n != 3 {
			return fmt.Errorf("%v jobs enqueued, want 3", n)
		}
		return atLeast(m[`refrakt_job_status_transitions_total{from_status="active",to_status="complete"}`], 3)
	})
	if degraded := degradedLines(t, gate); len(degraded) > 0 {
		t.Errorf("degraded: %q", degraded)
	}
	if denied, err := admin.Do(t.Context(), "ACL", "LOG").Slice(); err != nil || len(denied) > 0 {
		t.Errorf("Redis has denied %v, %v", denied, err)
	}

	if err := admin.Do(t.Context(), "ACL", "SETUSER", "refrakt-gate", "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	polltest.Until(t, time.Minute, "the gate to say that it has no subscription", func() error {
		if lines := degradedLines(t, gate); !strings.Contains(strings.Join(lines, "\n"), "no subscription to the status events") {
			return fmt.Errorf("degraded: %q", lines)
		}
		if n := gate.Metrics(t)["refrakt_gate_job_events_subscribed"]; n != 0 {
			return fmt.Errorf("the gauge says %v", n)
		}
		return nil
	})
	polltest.Until(t, time.Minute, "what Redis says to be in /readyz and in the log", func() error {
		if lines := degradedLines(t, gate); !strings.Contains(strings.Join(lines, "\n"), "NOPERM") {
			return fmt.Errorf("degraded: %q", lines)
		}
		if !strings.Contains(gate.Log(), "NOPERM") {
			return errors.New("not in the log")
		}
		return nil
	})
	if r := envoy.Post(t, "/run", e2e.Caller(t)); r.Status != http.StatusAccepted {
		t.Errorf("/run without the channel: got %d %s, want 202", r.Status, r.Body)
	}
}

// degradedLines is what /readyz lists of a gate that is ready.
func degradedLines(t *testing.T, g *e2e.Gate) []string {
	t.Helper()
	r := g.Get(t, "/readyz")
	var body struct{ Degraded []string }
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil || r.Status != http.StatusOK {
		t.Fatalf("/readyz: %d %s", r.Status, r.Body)
	}
	return body.Degraded
}
