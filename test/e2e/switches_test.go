package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestSwitches: the kill switch. Checks are switched off and on by a file, for one route or all, while requests come;
// a mistake in it changes nothing. It works with Redis away.
func TestSwitches(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "switches")
	s := e2e.Start(t, e2e.Options{Settings: map[string]string{
		"SWITCHES_FILE": file, "QUEUE_MAX_PENDING": "1000000", "RATE_LIMIT_RUN_BURST": "1", "RATE_LIMIT_RUN_PER_MINUTE": "1",
		"RATE_LIMIT_ASSISTANT_BURST": "1", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "1",
		"RATE_LIMIT_FAILURE_MODE": "deny", "QUEUE_FAILURE_MODE": "deny", "QUEUE_STALE_AFTER": "1500ms",
	}})
	caller := e2e.Caller(t)
	put := func(content string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what, path string, want int) {
		t.Helper()
		polltest.Until(t, 20*time.Second, what, func() error {
			if r := s.Post(t, path, caller); r.Status != want {
				return fmt.Errorf("%s: got %d %s, want %d", path, r.Status, r.Body, want)
			}
			return nil
		})
	}
	until("the first run", "/run", http.StatusAccepted)
	until("the bucket to be empty", "/run", http.StatusTooManyRequests)
	until("the other bucket to be empty", "/assistant", http.StatusTooManyRequests)

	put("# while the limits are found out\nRATE_LIMIT_SHADOW = run\n")
	until("/run to be let through", "/run", http.StatusAccepted)
	if r := s.Post(t, "/assistant", caller); r.Status != http.StatusTooManyRequests {
		t.Errorf("/assistant, which is not switched: got %d", r.Status)
	}
	put("RATE_LIMIT_SHADOW=perhaps\nQUEUE_MAX_PENDING=1\n")
	s.Gates[0].WaitLog(t, regexp.MustCompile(`does not count.*QUEUE_MAX_PENDING.*perhaps`))
	if r := s.Post(t, "/run", caller); r.Status != http.StatusAccepted {
		t.Errorf("after a mistake: got %d, want what was in force before", r.Status)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	until("/run to be limited again", "/run", http.StatusTooManyRequests)

	s.Redis.Kill()
	until("denials without Redis", "/assistant", http.StatusServiceUnavailable)
	put("RATE_LIMIT_SHADOW=true\nQUEUE_SHADOW=true\n")
	until("all to be let through", "/assistant", http.StatusOK)
	if on := s.Gates[0].Metrics(t)[`refrakt_gate_shadow_active{check="queue",policy="assistant"}`]; on != 1 {
		t.Errorf("the metric says %v, want 1", on)
	}
	s.Gates[0].WaitLog(t, regexp.MustCompile(`"msg":"switched","RATE_LIMIT_SHADOW":"true","QUEUE_SHADOW":"true"`))
}
