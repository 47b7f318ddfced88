package authz

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// TestBucketsOf: an operator is shown the buckets that the caller's requests are charged to: the same keys and limits.
func TestBucketsOf(t *testing.T) {
	const text = `
tiers: {premium: 3}
policies:
  run:
    match: [/run]
    buckets:
    - {per: ip, burst: 10, rate: 6/m}
    - {per: user, burst: 10, rate: 6/m, name: mine}
    - {per: all, burst: 1000, rate: 10/s, tiered: false, name: everybody}
`
	rules := rulesOf(t, text, nil)
	for name, tt := range map[string]struct {
		subject Subject
		headers []line
		tier    string
	}{
		"plain":           {Subject{IP: netip.MustParseAddr("203.0.113.9"), User: "ann"}, nil, ""},
		"premium":         {Subject{IP: netip.MustParseAddr("203.0.113.9"), User: "ann", Tier: "premium"}, []line{{"x-ratelimit-tier", "premium"}}, ""},
		"IPv6, by its 64": {Subject{IP: netip.MustParseAddr("2001:db8::1"), User: "ann"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []quota.Bucket
			limiter := limiterFunc(func(_ context.Context, req quota.Request) (quota.Result, error) {
				asked = req.Buckets
				return quota.Result{Taken: true, Limit: req.Buckets[0].Limit}, nil
			})
			s := New(config(t).Config, rules, limiter, Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			request(t, s, "GET", "/run", tt.subject.IP.String(), append(tt.headers, line{"x-user-id", "ann"})...)
			got, err := BucketsOf(rules.Policies, tt.subject)
			if err != nil {
				t.Fatal(err)
			}
			var buckets []quota.Bucket
			for _, b := range got {
				buckets = append(buckets, b.Bucket)
			}
			if !slices.Equal(buckets, asked) {
				t.Errorf("shown:   %v\ncharged: %v", buckets, asked)
			}
		})
	}
	only, err := BucketsOf(rules.Policies, Subject{User: "ann", Verified: true})
	if err != nil || len(only) != 2 || only[0].Per != policy.PerUser || only[0].Name != "mine" || only[1].Per != policy.PerAll {
		t.Errorf("of a user alone: %v, %v", only, err)
	}
	if claimed, _ := BucketsOf(rules.Policies, Subject{User: "ann"}); claimed[0].Key == only[0].Key {
		t.Error("a claimed user has the bucket of the verified one")
	}
	if _, err := BucketsOf(rules.Policies, Subject{Tier: "gold"}); err == nil {
		t.Error("a tier that there is not")
	}
}

// TestChargedWithoutLimits: where no bucket is asked, a request is charged to none.
func TestChargedWithoutLimits(t *testing.T) {
	for enabled, want := range map[bool]int{true: 1, false: 0} {
		cfg := config(t)
		cfg.LimitEnabled = enabled
		s := serve(cfg, quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if got := s.Charged(checkRequest("203.0.113.9", "/run", true)); len(got) != want {
			t.Errorf("limits enabled: %v; charged to %v", enabled, got)
		}
	}
}
