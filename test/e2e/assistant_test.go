package e2e_test

import (
	"net/http"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// The other forms of `/assistant`, as TestNoFormOfRunIsFree has them for `/run`: once the only token is spent, the
// API's /assistant answers to none of them.
func TestNoFormOfAssistantIsFree(t *testing.T) {
	t.Parallel()
	paths := []string{
		"/assistant", "/%61ssistant", "/assistan%74", "//assistant", "/./assistant", "/x/../assistant", "/a/..;/assistant",
		"/assistant/", "/assistant/.", "/assistant%0a", "/%61ssistant%0A", "//assistant%0a", "/assistant%00",
		"/%2fassistant", "/assistant;a=1", "/assistant?x=/ping", "/ping/../assistant", "/ping/%2e%2e/assistant",
		`/\assistant`, "/run/../assistant", "/run/..%2fassistant",
	}
	for name, config := range map[string]string{"shipped": e2e.ShippedConfig, "raw": e2e.RawConfig} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := e2e.Start(t, e2e.Options{Config: config, Settings: map[string]string{
				"RATE_LIMIT_ASSISTANT_BURST": "1", "RATE_LIMIT_ASSISTANT_PER_MINUTE": "1",
			}})
			caller := e2e.Caller(t)
			if r := s.Post(t, "/assistant", caller); r.Status != http.StatusOK {
				t.Fatalf("the only token: got %d %s, want 200", r.Status, r.Body)
			}
			wantLimited(t, s.Post(t, "/assistant", caller))
			for _, path := range paths {
				// A POST that the API answers with 200 has reached /assistant: no other route takes one so.
				if r := s.Raw(t, "POST "+path+" HTTP/1.1", caller); r.Status == http.StatusOK {
					t.Errorf("POST %s: the API has answered: %s", path, r.Body)
				}
			}
			// The routes have a bucket each.
			if r := s.Post(t, "/run", caller); r.Status != http.StatusAccepted {
				t.Errorf("the same caller's /run: got %d %s, want 202", r.Status, r.Body)
			}
		})
	}
}
