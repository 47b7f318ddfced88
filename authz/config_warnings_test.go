package authz

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

func TestIsNormal(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/run": true, "/run/": true, "/run/x.y/..z/.well-known": true, "/run%0a": true, "/a%20b%C3%BC": true, "/run;a=1": true,
		"/run%": true, "/run%7": true, "/run%zz": true, "/%2572un": true, "": true, "*": true, "/a/..;/run": true,
		"//run": false, "/run//": false, "/./run": false, "/run/.": false, "/x/../run": false, "/run/..": false, `/\run`: false,
		"/%61": false, "/%7a": false, "/%41": false, "/%5A": false, "/%30": false, "/%39": false, "/%2d": false, "/%60%7b%40%5b%3a": true,
		"/r%75n": false, "/r%75": false, "/%2e/run": false, "/run%2fx": false, "/run%2Fx": false, "/run%5c": false, "/run%7e": false,
	} {
		if got := isNormal(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// TestConfigWarnings checks what is counted, and that each kind is logged once.
func TestConfigWarnings(t *testing.T) {
	crowd := make([]line, 300)
	for i := range crowd {
		crowd[i] = line{"x", "y"}
	}
	for name, tt := range map[string]struct {
		peer, path, policy string
		lines              []line
		want               string
	}{
		"as expected":                       {peer: "203.0.113.9", path: "/run", policy: "run"},
		"no policy named":                   {peer: "203.0.113.9", path: "/run"},
		"another path than the gate knows":  {peer: "203.0.113.9", path: "/api/v1/run", policy: "run"},
		"a client is named":                 {peer: "10.0.0.1", path: "/run", lines: []line{{"x-forwarded-for", "203.0.113.9, 10.0.0.2"}}},
		"a parameter, read in two ways":     {peer: "203.0.113.9", path: "/run;x/..;/assistant", policy: "run"},
		"a parameter, another policy":       {peer: "203.0.113.9", path: "/assistant;x", policy: "run"},
		"an escape, another policy":         {peer: "203.0.113.9", path: "/assistant%0a", policy: "run"},
		"a policy that does not exist":      {peer: "203.0.113.9", path: "/run", policy: "rum"},
		"a query is not normalised":         {peer: "203.0.113.9", path: "/run?x=//%75", policy: "run"},
		"not normalised":                    {peer: "203.0.113.9", path: "//run", want: "path"},
		"not normalised, not guarded":       {peer: "203.0.113.9", path: "//ping", want: "path"},
		"not normalised, the policy too":    {peer: "203.0.113.9", path: "/assistant/../run", policy: "assistant", want: "path"},
		"the policies differ":               {peer: "203.0.113.9", path: "/run?x", policy: "assistant", want: "policy"},
		"more headers than are read":        {peer: "203.0.113.9", path: "/run", lines: crowd, want: "headers"},
		"nobody is named":                   {peer: "10.0.0.1", path: "/run", want: "client"},
		"nobody but proxies is named":       {peer: "10.0.0.1", path: "/run", lines: []line{{"x-forwarded-for", "10.0.0.7"}}, want: "client"},
		"the header is no address":          {peer: "10.0.0.1", path: "/run", lines: []line{{"cf-connecting-ip", "unknown"}, {"x-forwarded-for", "203.0.113.9"}}, want: "client_ip_header"},
		"the header is empty":               {peer: "10.0.0.1", path: "/run", lines: []line{{"cf-connecting-ip", ""}, {"x-forwarded-for", "203.0.113.9"}}, want: "client_ip_header"},
		"the header is there twice":         {peer: "10.0.0.1", path: "/run", lines: []line{{"cf-connecting-ip", "203.0.113.9"}, {"cf-connecting-ip", "203.0.113.9"}}, want: "client client_ip_header"},
		"the header has a port":             {peer: "10.0.0.1", path: "/run", lines: []line{{"cf-connecting-ip", "2001:db8:1:2:3:4:5:9:46532"}}},
		"the header is a stranger's":        {peer: "203.0.113.9", path: "/run", lines: []line{{"cf-connecting-ip", "unknown"}}},
		"the header, not guarded":           {peer: "10.0.0.1", path: "/ping", lines: []line{{"cf-connecting-ip", "unknown"}}},
		"nobody is named, and many headers": {peer: "10.0.0.1", path: "/run", lines: crowd, want: "client headers"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			reg := prometheus.NewRegistry()
			s := serve(config(t), quota.NewMemory(), nil, reg, slog.New(slog.NewTextHandler(&log, nil)))
			for range 3 {
				req := checkRequest(tt.peer, tt.path, true, tt.lines...)
				req.Attributes.ContextExtensions = map[string]string{envoy.PolicyExtension: tt.policy}
				if _, err := s.Check(t.Context(), req); err != nil {
					t.Fatal(err)
				}
			}
			for about := range configWarnings {
				times, lines := 0, 0
				if slices.Contains(strings.Fields(tt.want), string(about)) {
					times, lines = 3, 1
				}
				if got := metrictest.Value(t, reg, "refrakt_gate_envoy_doubts_total", "about", string(about)); got != float64(times) {
					t.Errorf("%s: counted %v times, want %d", about, got, times)
				}
				if got := strings.Count(log.String(), " about="+string(about)+"\n"); got != lines {
					t.Errorf("%s: said %d times, want %d", about, got, lines)
				}
			}
		})
	}
}

// TestConfigWarningsWithoutBuckets: a client header that can't be read is seen too while
// the queue sheds, and with limits off.
func TestConfigWarningsWithoutBuckets(t *testing.T) {
	t.Parallel()
	off := config(t)
	off.LimitEnabled = false
	for name, c := range map[string]struct {
		cfg   setup
		queue Queue
	}{
		"limits off":        {off, nil},
		"the queue is full": {config(t), fakeQueue{calls: new([]string), shed: backpressure.StateFull}},
	} {
		reg := prometheus.NewRegistry()
		s := serve(c.cfg, quota.NewMemory(), c.queue, reg, slog.New(slog.DiscardHandler))
		req := checkRequest("10.0.0.1", "/run", true, line{"cf-connecting-ip", "unknown"}, line{"x-forwarded-for", "203.0.113.9"})
		if _, err := s.Check(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if got := metrictest.Value(t, reg, "refrakt_gate_envoy_doubts_total", "about", "client_ip_header"); got != 1 {
			t.Errorf("%s: counted %v times, want once", name, got)
		}
	}
}

// TestCallersAreCounted checks that each caller is counted once, with the right labels.
func TestCallersAreCounted(t *testing.T) {
	for name, tt := range map[string]struct {
		peer, path string
		lines      []line
		ip, user   string
	}{
		"the peer":         {"203.0.113.9", "/run", []line{{"cf-connecting-ip", "1.1.1.1"}}, "peer", "none"},
		"by its header":    {"10.0.0.1", "/run", []line{{"cf-connecting-ip", "1.1.1.1"}, {"x-user-id", "ann"}}, "client_ip_header", "header"},
		"by forwarded":     {"10.0.0.1", "/run?user_id=ann", []line{{"x-forwarded-for", "1.1.1.1"}}, "x_forwarded_for", "query"},
		"a proxy":          {"10.0.0.1", "/run", []line{{"x-user-id", "a,b"}}, "proxy", "ambiguous"},
		"nobody":           {"", "/run?user_id=", []line{{"cf-connecting-ip", "1.1.1.1"}}, "unknown", "none"},
		"the socket alone": {"unix", "/run", nil, "unknown", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			s := serve(config(t), quota.NewMemory(), nil, reg, slog.New(slog.DiscardHandler))
			count := func() float64 {
				// The test fails if the series does not exist from the start.
				return metrictest.Value(t, reg, "refrakt_gate_callers_total", "ip_from", tt.ip, "user_from", tt.user)
			}
			before := count()
			if _, err := s.Check(t.Context(), checkRequest(tt.peer, tt.path, true, tt.lines...)); err != nil {
				t.Fatal(err)
			}
			if got := count() - before; got != 1 {
				t.Errorf("%s, %s: %v, want 1", tt.ip, tt.user, got)
			}
			for metric, want := range map[string]bool{"refrakt_gate_unknown_ips_total": tt.ip == "unknown", "refrakt_gate_ambiguous_users_total": tt.user == "ambiguous"} {
				if got := metrictest.Value(t, reg, metric); (got == 1) != want || got > 1 {
					t.Errorf("%s: %v, want it to count: %v", metric, got, want)
				}
			}
		})
	}
}
