package authz

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// TestGuardsNothing: a gate that guards nothing is noticed. There is no alarm about a gate
// that is new or idle, or about requests that rightly pass.
func TestGuardsNothing(t *testing.T) {
	type asked struct {
		line, policy string // method and path
		times        int
		every        time.Duration
	}
	api := asked{"POST /api/run", "", 150, 4 * time.Second}
	for name, tt := range map[string]struct {
		asked []asked
		want  bool
	}{
		"an API under a prefix":        {[]asked{api}, true},
		"another method":               {[]asked{{"PATCH /api/run?x=//", "", 100, 4 * time.Second}}, true},
		"with health checks between":   {[]asked{{"POST /api/run", "", 50, 4 * time.Second}, {"GET /healthz", "", 50, time.Second}, {"POST /api/run", "", 50, 4 * time.Second}}, true},
		"exactly long enough":          {[]asked{{"POST /api/run", "", 1, 0}, {"POST /api/run", "", 98, time.Millisecond}, {"POST /api/run", "", 1, 5*time.Minute - 98*time.Millisecond}}, true},
		"nobody asks":                  {nil, false},
		"too few":                      {[]asked{{"POST /api/run", "", 99, time.Minute}}, false},
		"a burst":                      {[]asked{{"POST /api/run", "", 5000, time.Millisecond}}, false},
		"a burst after a long time":    {[]asked{{"GET /", "", 1, time.Hour}, {"POST /api/run", "", 5000, time.Millisecond}}, false},
		"not long enough":              {[]asked{{"POST /api/run", "", 99, 0}, {"POST /api/run", "", 1, 5*time.Minute - 1}}, false},
		"health checks":                {[]asked{{"GET /healthz", "", 5000, time.Second}, {"HEAD /", "", 5000, time.Second}}, false},
		"preflights of others":         {[]asked{{"OPTIONS /x", "", 5000, time.Second}}, false},
		"scanners":                     {[]asked{{"POST //xmlrpc.php", "", 200, time.Minute}, {"POST /a%20b", "", 200, time.Minute}, {"POST /x;y", "", 200, time.Minute}, {"POST /.env", "", 90, time.Minute}}, false},
		"a path that is too long":      {[]asked{{"POST /" + strings.Repeat("x", policy.MaxPath), "", 200, time.Minute}}, false},
		"one is guarded at first":      {[]asked{{"POST /run", "", 1, 0}, api}, false},
		"one is guarded at last":       {[]asked{api, {"GET /run", "", 1, 0}}, false},
		"the assistant is":             {[]asked{{"POST /assistant", "", 1, 0}, api}, false},
		"Envoy names the policy":       {[]asked{{"POST /api/run", "run", 100, 4 * time.Second}}, false},
		"Envoy names one there is not": {[]asked{{"POST /api/run", "rum", 100, 4 * time.Second}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				reg := prometheus.NewRegistry()
				s := serve(config(t), quota.NewMemory(), nil, reg, slog.New(slog.NewTextHandler(&log, nil)))
				wasSeen := false
				for _, a := range tt.asked {
					method, path, _ := strings.Cut(a.line, " ")
					req := checkRequest("203.0.113.9", path, true)
					req.Attributes.Request.Http.Method = method
					if a.policy != "" {
						req.Attributes.ContextExtensions = map[string]string{envoy.PolicyExtension: a.policy}
					}
					for range a.times {
						time.Sleep(a.every)
						if _, err := s.Check(t.Context(), req); err != nil {
							t.Fatal(err)
						}
					}
					wasSeen = wasSeen || s.GuardsNothing()
				}
				if got := s.GuardsNothing(); got != tt.want {
					t.Errorf("guards nothing: %v, want %v", got, tt.want)
				}
				if got := metrictest.Value(t, reg, "refrakt_gate_guards_nothing"); (got == 1) != tt.want {
					t.Errorf("the metric is %v", got)
				}
				lines := strings.Count(log.String(), "none of the requests that Envoy asks about is guarded")
				if wasSeen && lines != 1 || !wasSeen && lines != 0 {
					t.Errorf("logged %d times, seen: %v", lines, wasSeen)
				}
			})
		})
	}
}
