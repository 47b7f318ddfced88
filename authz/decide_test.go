package authz

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// throughFile is the preset of an environment, printed as a policy file and read again.
func throughFile(t testing.TB, env policy.Environment, queue Queue) Rules {
	t.Helper()
	return rulesOf(t, string(env.File(queue != nil).YAML()), queue)
}

// TestCheckOrder checks the order of the checks, and that no check is made whose outcome
// could not count any more. Requests with raw headers are decided by the preset as a file.
func TestCheckOrder(t *testing.T) {
	const ok, full, slow, unknown = backpressure.StateOK, backpressure.StateFull, backpressure.StateSlow, backpressure.StateUnknown
	const take = "take refrakt:gate:bucket:run:ip:203.0.113.9"
	const refund = "refund refrakt:gate:bucket:run:ip:203.0.113.9"
	const shed, shedAssistant = "shed ip:203.0.113.9 true", "shed ip:203.0.113.9 false"
	const admit, told = "admit ip:203.0.113.9", "told ip:203.0.113.9"
	type want struct {
		status  int
		reason  Reason
		calls   string
		shadow  bool
		retry   string
		body    string
		buckets bool
	}
	// An interval of 10 s, 1.5 s of it gone, rounded up.
	limited := want{status: 429, reason: ReasonRateLimited, calls: shed + ", " + take, retry: "9", body: `{"detail":"Too Many Requests"}`, buckets: true}
	tests := map[string]struct {
		change func(*setup)
		path   string
		method string
		lines  []line
		policy string
		state  backpressure.State
		older  bool
		admit  backpressure.State
		take   func(context.Context, quota.Limit) (quota.Result, error)
		want   want
	}{
		"allowed":     {want: want{reason: ReasonOK, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"not guarded": {path: "/ping", state: full, want: want{reason: ReasonNotGuarded}},
		"preflight": {method: "OPTIONS", lines: []line{{"origin", "https://x"}, {"access-control-request-method", "POST"}}, state: full,
			want: want{reason: ReasonPreflight}},
		"options that is no preflight": {method: "OPTIONS", lines: []line{{"origin", "https://x"}},
			want: want{reason: ReasonOK, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"options without an origin": {method: "OPTIONS", lines: []line{{"access-control-request-method", "POST"}},
			want: want{reason: ReasonOK, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"a POST is no preflight": {lines: []line{{"origin", "https://x"}, {"access-control-request-method", "POST"}},
			want: want{reason: ReasonOK, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"unknown policy": {policy: "rum", want: want{status: 503, reason: ReasonUnknownPolicy, retry: "5", body: `{"detail":"The gateway is misconfigured."}`}},
		"queue full": {state: full, take: denies,
			want: want{status: 503, reason: ReasonQueueFull, calls: shed + ", " + told, retry: "33", body: `{"detail":"The job queue is full. Please retry later."}`}},
		"queue slow": {state: slow, take: denies,
			want: want{status: 503, reason: ReasonQueueSlow, calls: shed + ", " + told, retry: "33", body: `{"detail":"The job queue is slow: jobs wait too long. Please retry later."}`}},
		"queue full sheds the assistant": {path: "/assistant", state: full,
			want: want{status: 503, reason: ReasonQueueFull, calls: shedAssistant + ", " + told, retry: "33", body: `{"detail":"The job queue is full. Please retry later."}`}},
		"queue unknown, allow": {state: unknown, want: want{reason: ReasonQueueUnknown, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"queue unknown, deny": {state: unknown, change: func(c *setup) { c.QueueFailureMode = FailDeny },
			want: want{status: 503, reason: ReasonQueueUnknown, calls: shed + ", " + told, retry: "33", body: `{"detail":"The state of the job queue is unknown. Please retry later."}`}},
		"queue full, shadow": {state: full, change: func(c *setup) { c.QueueShadow = everywhere },
			want: want{reason: ReasonQueueFull, shadow: true, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"queue unknown, deny, shadow": {state: unknown, change: func(c *setup) { c.QueueFailureMode = FailDeny; c.QueueShadow = everywhere },
			want: want{reason: ReasonQueueUnknown, shadow: true, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"bucket empty":              {take: denies, want: limited},
		"bucket empty, queue noted": {take: denies, state: unknown, want: limited},
		"bucket empty, queue in shadow": {take: denies, state: full, change: func(c *setup) { c.QueueShadow = everywhere },
			want: func() want { w := limited; w.shadow, w.calls = true, shed+", "+take; return w }()},
		"bucket empty, queue full by an older sample": {take: denies, state: full, older: true,
			want: want{status: 503, reason: ReasonQueueFull, calls: shed + ", " + take + ", " + told, retry: "33", body: `{"detail":"The job queue is full. Please retry later."}`}},
		"bucket empty, queue full by an older sample, in shadow": {take: denies, state: full, older: true, change: func(c *setup) { c.QueueShadow = everywhere },
			want: func() want { w := limited; w.calls = shed + ", " + take; return w }()},
		"queue full by an older sample": {state: full, older: true, want: want{reason: ReasonOK, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"bucket empty, shadow": {take: denies, change: func(c *setup) { c.LimitShadow = everywhere },
			want: want{reason: ReasonRateLimited, shadow: true, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"limits off": {take: denies, change: func(c *setup) { c.LimitEnabled = false }, want: want{reason: ReasonOK, calls: shed + ", " + admit}},
		"limiter away, allow": {take: fails, change: func(c *setup) { c.LimitFailureMode = FailAllow },
			want: want{reason: ReasonLimiterUnavailable, calls: shed + ", " + take + ", " + admit}},
		"limiter away, deny": {take: fails, change: func(c *setup) { c.LimitFailureMode = FailDeny },
			want: want{status: 503, reason: ReasonLimiterUnavailable, calls: shed + ", " + take, retry: "5", body: `{"detail":"The rate limiter is unavailable. Please retry later."}`}},
		"limiter broken, allow": {take: breaks, change: func(c *setup) { c.LimitFailureMode = FailAllow },
			want: want{reason: ReasonInternal, calls: shed + ", " + take + ", " + admit}},
		"limiter broken, deny": {take: breaks, change: func(c *setup) { c.LimitFailureMode = FailDeny },
			want: want{status: 503, reason: ReasonInternal, calls: shed + ", " + take, retry: "5", body: `{"detail":"The gateway failed. Please retry later."}`}},
		"limiter away, deny, shadow": {take: fails, change: func(c *setup) { c.LimitFailureMode = FailDeny; c.LimitShadow = everywhere },
			want: want{reason: ReasonLimiterUnavailable, shadow: true, calls: shed + ", " + take + ", " + admit}},
		"full at the last look": {admit: full,
			want: want{status: 503, reason: ReasonQueueFull, calls: shed + ", " + take + ", " + admit + ", " + told + ", " + refund, retry: "33", body: `{"detail":"The job queue is full. Please retry later."}`}},
		"full at the last look, shadow": {admit: full, change: func(c *setup) { c.QueueShadow = everywhere },
			want: want{reason: ReasonQueueFull, shadow: true, calls: shed + ", " + take + ", " + admit, buckets: true}},
		"full at the last look, nothing to refund": {admit: full, take: denies, change: func(c *setup) { c.LimitShadow = everywhere },
			want: want{status: 503, reason: ReasonQueueFull, shadow: true, calls: shed + ", " + take + ", " + admit + ", " + told, retry: "33", body: `{"detail":"The job queue is full. Please retry later."}`, buckets: true}},
		"unknown at the last look, deny": {admit: unknown, change: func(c *setup) { c.QueueFailureMode = FailDeny },
			want: want{status: 503, reason: ReasonQueueUnknown, calls: shed + ", " + take + ", " + admit + ", " + told + ", " + refund, retry: "33", body: `{"detail":"The state of the job queue is unknown. Please retry later."}`}},
		"the assistant is not counted in": {path: "/assistant", admit: full,
			want: want{reason: ReasonOK, calls: shedAssistant + ", " + strings.Replace(take, ":run:", ":assistant:", 1), buckets: true}},
	}
	for name, tt := range tests {
		for _, raw := range []bool{false, true} {
			byCodec(t, name, func(t *testing.T, codec string) {
				cfg := config(t)
				if tt.change != nil {
					tt.change(&cfg)
				}
				if tt.path == "" {
					tt.path = "/run"
				}
				if tt.take == nil {
					tt.take = takes
				}
				for _, s := range []*backpressure.State{&tt.state, &tt.admit} {
					if *s == "" {
						*s = ok
					}
				}
				var calls []string
				reg := prometheus.NewRegistry()
				s := serve(cfg, fakeLimiter{&calls, tt.take}, fakeQueue{&calls, tt.state, tt.older, tt.admit}, reg, slog.New(slog.DiscardHandler))
				if raw {
					s.Use(throughFile(t, cfg.Environment, fakeQueue{&calls, tt.state, tt.older, tt.admit}))
				}
				req := checkRequest("203.0.113.9", tt.path, raw, tt.lines...)
				if tt.method != "" {
					req.Attributes.Request.Http.Method = tt.method
				}
				if tt.policy != "" {
					req.Attributes.ContextExtensions = map[string]string{"policy": tt.policy}
				}
				resp := ask(t.Context(), t, codec, s, req)
				if got := strings.Join(calls, ", "); got != tt.want.calls {
					t.Errorf("asked: %s\nwant:  %s", got, tt.want.calls)
				}
				compare(t, resp, tt.want.status, tt.want.body, tt.want.retry)
				meta := resp.GetDynamicMetadata().AsMap()
				if meta["reason"] != string(tt.want.reason) || meta["shadow"] != tt.want.shadow || meta["verdict"] != verdict(tt.want.status != 0) {
					t.Errorf("metadata %v, want reason %s, shadow %v", meta, tt.want.reason, tt.want.shadow)
				}
				if has := header(resp, "ratelimit") != ""; has != tt.want.buckets {
					t.Errorf("RateLimit header present: %v, want %v", has, tt.want.buckets)
				}
				name := "run"
				switch {
				case tt.policy != "":
					name = policyUnknown
				case tt.path == "/ping":
					name = policyNone
				case tt.path == "/assistant":
					name = "assistant"
				}
				if n := metrictest.Value(t, reg, "refrakt_gate_decisions_total", "policy", name, "verdict", verdict(tt.want.status != 0), "reason", string(tt.want.reason)); n != 1 {
					t.Errorf("counted %v times, want once", n)
				}
			})
		}
	}
}

// TestPremiumLimit checks that the tier decides the limit of a bucket, not its key.
func TestPremiumLimit(t *testing.T) {
	var calls []string
	var limits []quota.Limit
	limiter := fakeLimiter{&calls, func(_ context.Context, l quota.Limit) (quota.Result, error) {
		limits = append(limits, l)
		return quota.Result{Limit: l, Taken: true}, nil
	}}
	cfg := config(t)
	cfg.AssistantBurst, cfg.AssistantPerMinute = 30, 30
	s := serve(cfg, limiter, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	for _, tier := range []string{"plain", "premium"} {
		if _, err := s.Check(t.Context(), checkRequest("10.0.0.1", "/run", true, line{"x-ratelimit-tier", tier}, line{"x-user-id", "ann"})); err != nil {
			t.Fatal(err)
		}
	}
	if want := []quota.Limit{tenTokens, thirtyTokens}; !slices.Equal(limits, want) {
		t.Errorf("limits %v, want %v", limits, want)
	}
	if calls[0] != calls[1] || strings.Count(calls[0], "refrakt:gate:bucket:run:") != 2 {
		t.Errorf("buckets differ by tier, or are not two: %q", calls)
	}
}

// TestRefundFails: the client hears of the queue all the same.
func TestRefundFails(t *testing.T) {
	var calls []string
	var log strings.Builder
	for fails, lines := range map[bool]int{true: 1, false: 0} {
		log.Reset()
		limiter := failingRefund{fakeLimiter{&calls, takes}, fails}
		queue := fakeQueue{calls: &calls, shed: backpressure.StateOK, admit: backpressure.StateFull}
		s := serve(config(t), limiter, queue, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		resp, err := s.Check(t.Context(), checkRequest("203.0.113.9", "/run", true))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, resp, 503, `{"detail":"The job queue is full. Please retry later."}`, "33")
		if header(resp, "ratelimit") != "" {
			t.Errorf("refund fails %v: a bucket is shown whose state is not known", fails)
		}
		if n := strings.Count(log.String(), "tokens not refunded"); n != lines {
			t.Errorf("refund fails %v: logged %d times, want %d", fails, n, lines)
		}
	}
}

type failingRefund struct {
	fakeLimiter

	fails bool
}

func (f failingRefund) Refund(context.Context, quota.Result, []quota.Bucket) error {
	if f.fails {
		return quota.ErrUnavailable
	}
	return nil
}
