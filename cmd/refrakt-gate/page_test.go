package main

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

// TestPageHasNoCallers: the page says what is in force, and what follows, but has no address and no user of the file.
func TestPageHasNoCallers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	const text = `policies:
  learn: {match: [/learn], buckets: [{per: ip, burst: 5, rate: 6/m}]}
callers:
- {ip: 203.0.113.77, then: deny}
- {user: ann@example.com, then: exempt}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, errs := loadConfig(map[string]string{"POLICY_FILE": file, "USER_ID_SOURCES": "jwt"})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	g, err := newGate(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	wants := func(texts ...string) {
		t.Helper()
		body := pageOf(g)
		for _, want := range texts {
			if !strings.Contains(body, want) {
				t.Errorf("no %q in\n%s", want, body)
			}
		}
		if strings.Contains(body, "203.0.113.77") || strings.Contains(body, "ann@") {
			t.Error("the page has an address or a user")
		}
	}
	wants("learn: /learn; no queue", "exceptions for callers: 2; refrakt-gate config shows them", `data-policy="learn"`, "Not ready: starting: ")
	next := *cfg.policies
	next.Policies = []policy.Policy{{Name: "teach", Match: []string{"/teach"}, Buckets: next.Policies[0].Buckets}}
	g.put(&next)
	g.page = g.newPage(prometheus.NewRegistry()) // the other one is shared for a second
	wants("teach: /teach; no queue", "exceptions for callers: 2", `data-policy="teach"`)
}

// pageOf is the page of a gate.
func pageOf(g *gate) string {
	answer := httptest.NewRecorder()
	g.page.ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	return answer.Body.String()
}
