package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestPolicyFileIsFollowed: a gate takes another file by itself, says in /readyz and in its metrics that a file is broken,
// and watches a queue no longer that is gone.
func TestPolicyFileIsFollowed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	text := func(name string) string {
		return fmt.Sprintf("queues: {q-%s: {max_pending: 5}}\npolicies: {%s: {match: [/x], queue: q-%s, buckets: [{per: ip, burst: 1, rate: 1/d}]}}\n", name, name, name)
	}
	writePolicies(t, file, text("first"))
	gate := e2e.StartGate(t, map[string]string{"POLICY_FILE": file, "QUEUE_URL": redistest.Start(t).URL()})
	until := func(what string, condition func(m e2e.Metrics, ready string) error) {
		t.Helper()
		polltest.Until(t, 20*time.Second, what, func() error {
			r := gate.Get(t, "/readyz")
			if r.Status != http.StatusOK {
				return fmt.Errorf("/readyz: %d %s", r.Status, r.Body)
			}
			return condition(gate.Metrics(t), r.Body)
		})
	}
	follows := func(name, gone string) func(e2e.Metrics, string) error {
		return func(m e2e.Metrics, ready string) error {
			var of, ofGone int
			for series := range m {
				if strings.Contains(series, fmt.Sprintf(`policy="%s"`, name)) || strings.Contains(series, fmt.Sprintf(`queue="q-%s"`, name)) {
					of++
				}
				if gone != "" && strings.Contains(series, gone+`"`) {
					ofGone++
				}
			}
			if of < 20 || ofGone > 0 || m["refrakt_gate_policy_reload_successful"] != 1 || strings.Contains(ready, "POLICY_FILE") {
				return fmt.Errorf("%d series of %s, %d of %s, successful %v, readyz %s", of, name, ofGone, gone, m["refrakt_gate_policy_reload_successful"], ready)
			}
			return nil
		}
	}
	until("the first file", follows("first", ""))
	writePolicies(t, file, text("second"))
	until("the second file, and nothing of the first", follows("second", "first"))

	writePolicies(t, file, "policies: {}\n")
	until("the broken file to be reported", func(m e2e.Metrics, ready string) error {
		if m["refrakt_gate_policy_reload_successful"] != 0 || !strings.Contains(ready, "policies: POLICY_FILE can't be used") {
			return fmt.Errorf("successful %v, readyz %s", m["refrakt_gate_policy_reload_successful"], ready)
		}
		return nil
	})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	writePolicies(t, file, text("third"))
	until("the third file", follows("third", "second"))
}
