package authz

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

type panickingQueue struct{}

func (panickingQueue) Place(backpressure.Asker) backpressure.Place                    { panic("boom") }
func (panickingQueue) Shed(backpressure.Asker, bool) backpressure.Verdict             { panic("boom") }
func (panickingQueue) Admit(context.Context, backpressure.Asker) backpressure.Verdict { panic("boom") }
func (panickingQueue) Admitted(backpressure.Asker, backpressure.Admission, bool) backpressure.Verdict {
	panic("boom")
}

// TestPanicIsAVerdict checks that no panic becomes a gRPC error, by failure mode.
func TestPanicIsAVerdict(t *testing.T) {
	tests := map[string]struct {
		change func(*setup)
		status int
	}{
		"local":                 {func(*setup) {}, http.StatusServiceUnavailable},
		"deny":                  {func(c *setup) { c.LimitFailureMode = FailDeny }, http.StatusServiceUnavailable},
		"allow":                 {func(c *setup) { c.LimitFailureMode = FailAllow }, 0},
		"no limits, allow":      {func(c *setup) { c.LimitEnabled = false }, 0},
		"no limits, queue deny": {func(c *setup) { c.LimitEnabled = false; c.QueueFailureMode = FailDeny }, http.StatusServiceUnavailable},
	}
	for name, tt := range tests {
		byCodec(t, name, func(t *testing.T, codec string) {
			cfg := config(t)
			tt.change(&cfg)
			var calls []string
			var log strings.Builder
			limiter := fakeLimiter{&calls, func(context.Context, quota.Limit) (quota.Result, error) { panic("boom") }}
			reg := prometheus.NewRegistry()
			s := serve(cfg, limiter, panickingQueue{}, reg, slog.New(slog.NewTextHandler(&log, nil)))
			for range 3 {
				resp := ask(t.Context(), t, codec, s, checkRequest("203.0.113.9", "/assistant", true))
				compare(t, resp, tt.status, `{"detail":"The gateway failed. Please retry later."}`, "5")
			}
			if n := metrictest.Value(t, reg, "refrakt_gate_decisions_total", "policy", "assistant", "reason", "internal", "verdict", verdict(tt.status != 0)); n != 3 {
				t.Errorf("counted %v times, want 3", n)
			}
			if strings.Count(log.String(), "panic=boom") != 1 || !strings.Contains(log.String(), "panickingQueue.Shed") {
				t.Errorf("want one line about the panic, with its stack, got:\n%s", log.String())
			}
		})
	}
}

// panickingHandler is a log that panics where its functions say so.
type panickingHandler struct {
	slog.Handler
	record, enabled func(slog.Level) bool
}

func (h panickingHandler) Enabled(ctx context.Context, l slog.Level) bool {
	if h.enabled(l) {
		panic("boom")
	}
	return h.Handler.Enabled(ctx, l)
}

func (h panickingHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.record(r.Level) {
		panic("boom")
	}
	return h.Handler.Handle(ctx, r)
}

// TestEveryPartMayPanic: whatever part of Check panics, the client gets a verdict: that of
// the checks, or that of the failure mode. The stack is logged.
func TestEveryPartMayPanic(t *testing.T) {
	const failed = `{"detail":"The gateway failed. Please retry later."}`
	no := func(slog.Level) bool { return false }
	all := func(slog.Level) bool { return true }
	debug := func(l slog.Level) bool { return l == slog.LevelDebug }
	broken := func(context.Context, quota.Limit) (quota.Result, error) { return quota.Result{Taken: true}, nil } // capacity 0
	panics := func(context.Context, quota.Limit) (quota.Result, error) { panic("boom") }
	tests := map[string]struct {
		take            func(context.Context, quota.Limit) (quota.Result, error)
		spoil           func(*Server)
		record, enabled func(slog.Level) bool
		status          int
		body, retry     string
		reason          Reason
		said            string // empty: the log itself panics
	}{
		"deciding":              {take: panics, status: 503, body: failed, retry: "5", reason: ReasonInternal, said: "panic while deciding"},
		"answering":             {take: broken, status: 503, body: failed, retry: "5", reason: ReasonInternal, said: "panic while answering"},
		"counting an allowance": {take: takes, spoil: func(s *Server) { s.metrics.duration = nil }, said: "panic while counting"},
		"counting a denial": {take: denies, spoil: func(s *Server) { s.metrics.duration = nil },
			status: 429, body: `{"detail":"Too Many Requests"}`, retry: "9", said: "panic while counting"},
		"logging":                     {take: takes, record: debug, reason: ReasonOK, said: "panic while logging"},
		"asking whether to log":       {take: takes, enabled: debug, reason: ReasonOK, said: "panic while logging"},
		"diagnosis":                   {take: takes, spoil: func(s *Server) { s.metrics.configWarnings = nil }, reason: ReasonOK, said: "panic while looking for config warnings"},
		"logging what panicked":       {take: panics, record: all, status: 503, body: failed, retry: "5", reason: ReasonInternal},
		"anything that can be logged": {take: takes, record: all, enabled: all, reason: ReasonOK},
	}
	for name, tt := range tests {
		byCodec(t, name, func(t *testing.T, codec string) {
			var log bytes.Buffer
			var calls []string
			handler := panickingHandler{slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}), no, no}
			if tt.record != nil {
				handler.record = tt.record
			}
			if tt.enabled != nil {
				handler.enabled = tt.enabled
			}
			reg := prometheus.NewRegistry()
			s := serve(config(t), fakeLimiter{&calls, tt.take}, nil, reg, slog.New(handler))
			if tt.spoil != nil {
				tt.spoil(s)
			}
			resp := ask(t.Context(), t, codec, s, checkRequest("203.0.113.9", "//run", true))
			compare(t, resp, tt.status, tt.body, tt.retry)
			if tt.reason != "" {
				if n := metrictest.Value(t, reg, "refrakt_gate_decisions_total", "policy", "run", "reason", string(tt.reason), "verdict", verdict(tt.status != 0)); n != 1 {
					t.Errorf("counted %v times as %s, want once", n, tt.reason)
				}
				if got := resp.GetDynamicMetadata().AsMap()["reason"]; got != string(tt.reason) {
					t.Errorf("metadata has reason %v, want %s", got, tt.reason)
				}
			}
			if tt.said != "" && (strings.Count(log.String(), tt.said) != 1 || !strings.Contains(log.String(), "authz.(*Server).check(")) {
				t.Errorf("want %q with a stack, got:\n%s", tt.said, &log)
			}
			if n := metrictest.Value(t, reg, "refrakt_gate_checks_in_progress"); n != 0 {
				t.Errorf("%v in progress, want none", n)
			}
		})
	}
}

// TestComplaints: a flood of requests does not flood the log, and no complaint hides one
// of another kind. Panics from different places are different kinds.
func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var calls []string
		limiter := fakeLimiter{&calls, func(context.Context, quota.Limit) (quota.Result, error) {
			if len(calls)%2 == 0 {
				panic("even")
			}
			panic("odd")
		}}
		s := serve(config(t), limiter, nil, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
		wrong := checkRequest("203.0.113.9", "/run", true)
		wrong.Attributes.ContextExtensions = map[string]string{"policy": "rum"}
		flood := func() {
			for range 6 {
				_, _ = s.Check(t.Context(), wrong)
				_, _ = s.Check(t.Context(), checkRequest("203.0.113.9", "/run", true))
			}
		}
		want := func(times int) {
			t.Helper()
			for _, text := range []string{"policy=rum", "panic=even", "panic=odd"} {
				if n := strings.Count(log.String(), text); n != times {
					t.Errorf("%d lines with %s, want %d:\n%s", n, text, times, &log)
				}
			}
		}
		flood()
		want(1)
		time.Sleep(time.Minute - time.Nanosecond)
		flood()
		want(1)
		time.Sleep(time.Nanosecond)
		flood()
		want(2)
	})
}
