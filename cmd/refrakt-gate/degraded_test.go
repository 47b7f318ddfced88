package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestReadyzTellsOfRoutes: a gate that guards nothing of what it is asked is ready, and
// /readyz says so.
func TestReadyzTellsOfRoutes(t *testing.T) {
	cfg, errs := loadConfig(map[string]string{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	synctest.Test(t, func(t *testing.T) {
		g, err := newGate(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer g.close()
		g.ready.Clear(starting)
		readyz := func() string {
			t.Helper()
			answer := httptest.NewRecorder()
			g.telemetry.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
			if answer.Code != http.StatusOK {
				t.Errorf("status %d: %s", answer.Code, answer.Body)
			}
			return answer.Body.String()
		}
		const line = "routes: none of the requests that Envoy asks about is guarded"
		for range 100 {
			if text := readyz(); strings.Contains(text, line) {
				t.Fatalf("too early: %s", text)
			}
			time.Sleep(4 * time.Second)
			if _, err := g.checks.Check(t.Context(), checkCmd{Path: "/api/run", Method: "POST", IP: "203.0.113.9"}.request()); err != nil {
				t.Fatal(err)
			}
		}
		if text := readyz(); !strings.Contains(text, line) {
			t.Errorf("readyz says %q, want %q", text, line)
		}
	})
}
