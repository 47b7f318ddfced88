package main

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/telemetry/page"
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

// TestPageSwitches: the page says what each switch is, by its name. Without a header, a browser can't read the metrics.
func TestPageSwitches(t *testing.T) {
	t.Parallel()
	start := func(environ map[string]string) *gate {
		cfg, errs := loadConfig(environ)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		g, err := newGate(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.close)
		return g
	}
	wants := func(g *gate, switches ...page.Switch) {
		t.Helper()
		if got := g.switches(); !slices.Equal(got, switches) {
			t.Errorf("got %q, want %q", got, switches)
		}
	}
	g := start(map[string]string{"RATE_LIMIT_ENABLED": "false", "RATE_LIMIT_FAILURE_MODE": "allow", "QUEUE_FAILURE_MODE": "deny", "RATE_LIMIT_SHADOW": "run", "SWITCHES_FILE": "/no/switches"})
	modes := []page.Switch{{Name: "RATE_LIMIT_ENABLED", Value: "false"}, {Name: "RATE_LIMIT_FAILURE_MODE", Value: "allow"}, {Name: "QUEUE_FAILURE_MODE", Value: "deny"}}
	files := []page.Switch{{Name: "SWITCHES_FILE", Value: "/no/switches"}, {Name: "POLICY_FILE", Value: "not set"}}
	wants(g, slices.Concat(modes, []page.Switch{{Name: "RATE_LIMIT_SHADOW", Value: "run"}, {Name: "QUEUE_SHADOW", Value: "false"}}, files)...)
	var next policy.Switches
	if err := next.QueueShadow.UnmarshalText([]byte("true")); err != nil {
		t.Fatal(err)
	}
	g.switchTo(next)
	wants(g, slices.Concat(modes, []page.Switch{{Name: "RATE_LIMIT_SHADOW", Value: "false"}, {Name: "QUEUE_SHADOW", Value: "true"}}, files)...)
	if len(g.degradedLines()) > 0 {
		t.Errorf("degraded: %q", g.degradedLines())
	}
	g.switchesBroken.Store(true)
	if got, want := g.degradedLines(), "switches: SWITCHES_FILE can't be used; "; len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("degraded: %q, want %q", got, want)
	}
	body := pageOf(g)
	for _, want := range []string{`<a href="metrics">`, "Rate limits are off", "limits: not asked", "Degraded: switches: "} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if body := pageOf(start(map[string]string{"PROMETHEUS_BEARER_TOKEN": "s3cret"})); strings.Contains(body, `<a href="metrics">`) || !strings.Contains(body, `<a href="readyz">`) {
		t.Error("the page has a link that a browser can't follow, or no others")
	}
}

// pageOf is the page of a gate.
func pageOf(g *gate) string {
	answer := httptest.NewRecorder()
	g.page.ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	return answer.Body.String()
}
