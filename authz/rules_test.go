package authz

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// rulesOf reads a policy file. Each of its queues is the given one.
func rulesOf(t testing.TB, text string, queue Queue) Rules {
	t.Helper()
	file, mistakes := policy.Parse([]byte(text))
	for _, m := range mistakes {
		t.Fatal(m)
	}
	in := Rules{Policies: policy.Compile(file), Queues: make(map[string]WatchedQueue)}
	for _, q := range file.Queues {
		in.Queues[q.Name] = WatchedQueue{Queue: queue}
	}
	return in
}

// request sends a request from an address through a trusted proxy.
func request(t testing.TB, s *Server, method, path, ip string, lines ...line) *authv3.CheckResponse {
	t.Helper()
	req := checkRequest("10.0.0.1", path, true, append(lines, line{"cf-connecting-ip", ip})...)
	req.GetAttributes().GetRequest().GetHttp().Method = method
	resp, err := s.Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// statusOf is that of a denial, or 200.
func statusOf(resp *authv3.CheckResponse) int {
	if d := resp.GetDeniedResponse(); d != nil {
		return int(d.GetStatus().GetCode())
	}
	return http.StatusOK
}

func reason(resp *authv3.CheckResponse) string {
	return resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// withUsers has the users of verified tokens count, and that of the header.
func withUsers(t testing.TB) Config {
	cfg := config(t).Config
	cfg.UserSources = UserSources{UserJWT, UserHeader}
	cfg.JWTPayload, cfg.JWTUserClaim, cfg.JWTTierClaim = "jwt_payload", "sub", "plan"
	return cfg
}

// TestBuckets: a policy asks all buckets of a caller together, each with the limit of the caller's tier, and tells the
// client of all, and of the one that runs out first.
func TestBuckets(t *testing.T) {
	const text = `
tiers: {premium: 3}
policies:
  run:
    match: ["POST /v1/run"]
    buckets:
    - {per: ip, burst: 3, rate: 6/m}
    - {per: ip, burst: 100, rate: 5/h, name: hour}
    - {per: user, burst: 2, rate: 1/d, name: day}
    - {per: all, burst: 4, rate: 1/d, tiered: false, name: total}
`
	var asked []quota.Bucket
	limiter := recording{Memory: quota.NewMemory(), asked: &asked}
	s := New(withUsers(t), rulesOf(t, text, nil), limiter, Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	for i, tt := range []struct {
		ip, user, tier        string
		keys                  string
		status                int
		policy, limit, header string
	}{
		{ip: "203.0.113.1", keys: "run:ip:203.0.113.1 run/hour:ip:203.0.113.1 run/total:all", status: 200,
			policy: `"run";q=3;w=30, "hour";q=100;w=72000, "total";q=4;w=345600`, limit: `"run";r=2;t=10`},
		{ip: "203.0.113.1", user: "ann", keys: "run:ip:203.0.113.1 run/hour:ip:203.0.113.1 run/day:user:* run/total:all", status: 200,
			policy: `"run";q=3;w=30, "hour";q=100;w=72000, "day";q=2;w=172800, "total";q=4;w=345600`, limit: `"day";r=1;t=86400`},
		{ip: "203.0.113.2", user: "ann", keys: "run:ip:203.0.113.2 run/hour:ip:203.0.113.2 run/day:user:* run/total:all", status: 200,
			policy: `"run";q=3;w=30, "hour";q=100;w=72000, "day";q=2;w=172800, "total";q=4;w=345600`, limit: `"day";r=0;t=86400`},
		// The user's bucket is empty, so no other one is charged: the last token of all is still there.
		{ip: "203.0.113.2", user: "ann", keys: "run:ip:203.0.113.2 run/hour:ip:203.0.113.2 run/day:user:* run/total:all", status: 429,
			policy: `"run";q=3;w=30, "hour";q=100;w=72000, "day";q=2;w=172800, "total";q=4;w=345600`, limit: `"day";r=0;t=`, header: "86400"},
		{ip: "203.0.113.3", tier: "premium", keys: "run:ip:203.0.113.3 run/hour:ip:203.0.113.3 run/total:all", status: 200,
			policy: `"run";q=9;w=31, "hour";q=300;w=72000, "total";q=4;w=345600`, limit: `"total";r=0;t=86400`},
		// Two buckets are empty: the wait is the longer one's.
		{ip: "203.0.113.4", user: "ann", keys: "run:ip:203.0.113.4 run/hour:ip:203.0.113.4 run/day:user:* run/total:all", status: 429,
			policy: `"run";q=3;w=30, "hour";q=100;w=72000, "day";q=2;w=172800, "total";q=4;w=345600`, limit: `;r=0;t=`},
	} {
		asked = nil
		lines := []line{}
		if tt.user != "" {
			lines = append(lines, line{"x-user-id", tt.user})
		}
		if tt.tier != "" {
			lines = append(lines, line{"x-ratelimit-tier", tt.tier})
		}
		resp := request(t, s, "POST", "/v1/run", tt.ip, lines...)
		var keys []string
		for _, b := range asked {
			key := strings.TrimPrefix(b.Key, "refrakt:gate:bucket:")
			if before, _, ok := strings.Cut(key, "user:"); ok {
				key = before + "user:*"
			}
			keys = append(keys, key)
		}
		if got := strings.Join(keys, " "); got != tt.keys {
			t.Errorf("request %d: asked %s\nwant %s", i, got, tt.keys)
		}
		if got := statusOf(resp); got != tt.status {
			t.Errorf("request %d: %d, want %d", i, got, tt.status)
		}
		if got := header(resp, "ratelimit-policy"); got != tt.policy {
			t.Errorf("request %d: RateLimit-Policy %s\nwant %s", i, got, tt.policy)
		}
		if got := header(resp, "ratelimit"); !strings.Contains(got, tt.limit) {
			t.Errorf("request %d: RateLimit %s, want %s", i, got, tt.limit)
		}
		if tt.header != "" && header(resp, "retry-after") != tt.header {
			t.Errorf("request %d: Retry-After %s, want %s", i, header(resp, "retry-after"), tt.header)
		}
	}
	if resp := request(t, s, "GET", "/v1/run", "203.0.113.9"); reason(resp) != "not_guarded" {
		t.Errorf("GET: %s, want not_guarded", reason(resp))
	}
}

// recording notes the buckets that are asked.
type recording struct {
	*quota.Memory

	asked *[]quota.Bucket
}

func (r recording) Take(ctx context.Context, req quota.Request) (quota.Result, error) {
	*r.asked = req.Buckets
	return r.Memory.Take(ctx, req)
}

// TestOnlyUsers: a caller without a user has no bucket where all buckets are per user.
func TestOnlyUsers(t *testing.T) {
	const text = `policies: {run: {match: [/run], buckets: [{per: user, burst: 1, rate: 1/d}]}}`
	s := New(withUsers(t), rulesOf(t, text, nil), quota.NewMemory(), Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	for range 3 {
		if resp := request(t, s, "GET", "/run", "203.0.113.1"); statusOf(resp) != 200 || header(resp, "ratelimit") != "" {
			t.Errorf("without a user: %d, RateLimit %q", statusOf(resp), header(resp, "ratelimit"))
		}
	}
	for i, want := range []int{200, 429} {
		if resp := request(t, s, "GET", "/run", "203.0.113.1", line{"x-user-id", "ann"}); statusOf(resp) != want {
			t.Errorf("request %d of a user: %d, want %d", i, statusOf(resp), want)
		}
	}
}

// TestExceptions: exempt callers need no tokens, but the queue counts; denied ones get 403 before all other checks; a
// tier counts before what the request says. A verified user's exception counts before that of the address.
func TestExceptions(t *testing.T) {
	const text = `
tiers: {premium: 3, batch: 10}
queues: {jobs: {max_pending: 40}}
policies:
  run: {match: [/run], queue: jobs, becomes_job: true, buckets: [{per: ip, burst: 1, rate: 1/d}]}
callers:
- {ip: 192.0.2.0/24, then: exempt}
- {ip: 192.0.2.66, then: deny}
- {ip: "2001:db8::/32", then: {tier: batch}}
- {user: mallory, then: deny}
- {user: ann, then: {tier: premium}}
`
	type want struct {
		status int
		reason string
		calls  string
		policy string
	}
	denied := want{403, "forbidden", "", ""}
	for name, tt := range map[string]struct {
		ip    string
		token string // its user
		claim string // a user that is only claimed
		tier  string // that a trusted proxy names
		state backpressure.State
		want  want
	}{
		"nobody special":                      {ip: "203.0.113.1", want: want{200, "ok", "shed, take, admit", `"run";q=1;w=86400`}},
		"exempt":                              {ip: "192.0.2.1", want: want{200, "exempt", "shed, admit", ""}},
		"exempt, the queue is full":           {ip: "192.0.2.1", state: backpressure.StateFull, want: want{503, "queue_full", "shed, told", ""}},
		"denied within an exempt prefix":      {ip: "192.0.2.66", state: backpressure.StateFull, want: denied},
		"a tier by address":                   {ip: "2001:db8::1", want: want{200, "ok", "shed, take, admit", `"run";q=10;w=86400`}},
		"a tier by address beats the header":  {ip: "2001:db8::1", tier: "premium", want: want{200, "ok", "shed, take, admit", `"run";q=10;w=86400`}},
		"the header":                          {ip: "203.0.113.1", tier: " Batch", want: want{200, "ok", "shed, take, admit", `"run";q=10;w=86400`}},
		"a tier that is none":                 {ip: "203.0.113.1", tier: "gold", want: want{200, "ok", "shed, take, admit", `"run";q=1;w=86400`}},
		"denied user":                         {ip: "203.0.113.1", token: "mallory", want: denied},
		"denied user from an exempt address":  {ip: "192.0.2.1", token: "mallory", want: denied},
		"a user beats the address":            {ip: "192.0.2.1", token: "ann", want: want{200, "ok", "shed, take, admit", `"run";q=3;w=86400`}},
		"a user from a denied address passes": {ip: "192.0.2.66", token: "ann", want: want{200, "ok", "shed, take, admit", `"run";q=3;w=86400`}},
		"a claimed user is nobody":            {ip: "203.0.113.1", claim: "ann", want: want{200, "ok", "shed, take, admit", `"run";q=1;w=86400`}},
		"nor is a claimed mallory denied":     {ip: "203.0.113.1", claim: "mallory", want: want{200, "ok", "shed, take, admit", `"run";q=1;w=86400`}},
	} {
		t.Run(name, func(t *testing.T) {
			var calls []string
			queue := fakeQueue{&calls, backpressure.StateOK, false, backpressure.StateOK}
			if tt.state != "" {
				queue.shed = tt.state
			}
			limiter := fakeLimiter{&calls, takes}
			reg := prometheus.NewRegistry()
			s := New(withUsers(t), rulesOf(t, text, queue), limiter, Traces{}, reg, slog.New(slog.DiscardHandler))
			req := checkRequest("10.0.0.1", "/run", true, line{"cf-connecting-ip", tt.ip}, line{"x-user-id", tt.claim}, line{"x-ratelimit-tier", tt.tier})
			if tt.token != "" {
				token(t, req, "jwt_payload", map[string]any{"sub": tt.token})
			}
			resp, err := s.Check(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, c := range calls {
				kind, _, _ := strings.Cut(c, " ")
				kinds = append(kinds, kind)
			}
			if charged := s.Charged(req); (len(charged) > 0) != strings.Contains(tt.want.calls, "take") {
				t.Errorf("it is charged to %v, the limiter got %v", charged, calls)
			}
			got := want{statusOf(resp), reason(resp), strings.Join(kinds, ", "), header(resp, "ratelimit-policy")}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got.status == 403 {
				if body := resp.GetDeniedResponse().GetBody(); body != `{"detail":"Forbidden"}` || header(resp, "retry-after") != "" {
					t.Errorf("body %s, Retry-After %q", body, header(resp, "retry-after"))
				}
				if n := metrictest.Value(t, reg, "refrakt_gate_decisions_total", "policy", "run", "reason", "forbidden", "verdict", "deny"); n != 1 {
					t.Errorf("counted %v times", n)
				}
			}
		})
	}
}

// TestDeniedInShadow: the shadow mode of a policy is for its limits and its queue, not for callers that are denied.
func TestDeniedInShadow(t *testing.T) {
	const text = `
policies: {tried: {match: [/tried], shadow: true, buckets: [{per: ip, burst: 1, rate: 1/d}]}}
callers: [{ip: 192.0.2.66, then: deny}]
`
	s := New(withUsers(t), rulesOf(t, text, nil), quota.NewMemory(), Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if got := statusOf(request(t, s, "GET", "/tried", "192.0.2.66")); got != 403 {
		t.Errorf("got %d, want 403", got)
	}
}

// TestWindowsOfUsers: each bucket of a user has a key of its own.
func TestWindowsOfUsers(t *testing.T) {
	const text = `
policies:
  run:
    match: [/run]
    buckets: [{per: user, burst: 9, rate: 1/s}, {per: user, burst: 9, rate: 1/m, name: minute}, {per: ip, burst: 9, rate: 1/h, name: hour}, {per: ip, burst: 9, rate: 1/d, name: day}]
`
	var asked []quota.Bucket
	s := New(withUsers(t), rulesOf(t, text, nil), recording{quota.NewMemory(), &asked}, Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	request(t, s, "GET", "/run", "203.0.113.1", line{"x-user-id", "ann"})
	var before []string
	for _, b := range asked {
		key, subject, _ := strings.Cut(strings.TrimPrefix(b.Key, "refrakt:gate:bucket:"), ":")
		kind, _, _ := strings.Cut(subject, ":")
		before = append(before, key+" "+kind)
	}
	if got, want := strings.Join(before, ", "), "run user, run/minute user, run/hour ip, run/day ip"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// sharing is a queue that refuses everybody for its share, and notes who asks.
type sharing struct {
	fakeQueue

	asked *backpressure.Asker
}

func (q sharing) Admit(_ context.Context, a backpressure.Asker) backpressure.Verdict {
	*q.asked = a
	return backpressure.Verdict{State: backpressure.StateShare, RetryAfter: func() time.Duration { return 7 * time.Second }}
}

// TestQueueShare: a caller that has its share of the queue gets 429 and its tokens back. Shares belong to verified users
// and to addresses: a client that claims many users has the share of its address.
func TestQueueShare(t *testing.T) {
	const text = `
tiers: {premium: 3}
queues: {jobs: {max_pending: 40, fair_share: 1, reserve: {tiers: [premium], share: 0.2}}}
policies:
  run: {match: [/run], queue: jobs, becomes_job: true, buckets: [{per: ip, burst: 1, rate: 1/d}]}
`
	var calls []string
	var asked backpressure.Asker
	queue := sharing{fakeQueue{&calls, backpressure.StateOK, false, backpressure.StateOK}, &asked}
	s := New(withUsers(t), rulesOf(t, text, queue), fakeLimiter{&calls, takes}, Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	sharers := make(map[string]bool)
	for i := range 1000 {
		calls = nil
		resp := request(t, s, "POST", "/run", "203.0.113.1", line{"x-user-id", fmt.Sprint("user", i)})
		compare(t, resp, 429, `{"detail":"Too many of your jobs wait in the queue. Please retry later."}`, "7")
		if reason(resp) != "queue_share" || header(resp, "ratelimit") != "" || !strings.HasPrefix(strings.Join(calls, ", "), "shed ip:203.0.113.1 true, take refrakt:gate:bucket:run:ip:203.0.113.1, refund") {
			t.Fatalf("reason %s, calls %v", reason(resp), calls)
		}
		sharers[asked.Sharer] = true
	}
	if len(sharers) != 1 || asked.Address != "ip:203.0.113.1" || asked.Reserved {
		t.Errorf("%d shares, last %+v; want one, that of the address", len(sharers), asked)
	}
	for i := range 2 {
		req := checkRequest("10.0.0.1", "/run", true, line{"cf-connecting-ip", fmt.Sprint("203.0.113.", i)})
		token(t, req, "jwt_payload", map[string]any{"sub": "ann", "plan": "premium"})
		if _, err := s.Check(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(asked.Sharer, "jwt:") || !asked.Reserved {
			t.Errorf("a verified premium user: %+v", asked)
		}
		sharers[asked.Sharer] = true
	}
	if len(sharers) != 2 {
		t.Errorf("a verified user has %d shares from two addresses, want one", len(sharers)-1)
	}
}

// TestShadowOfOne: shadow is for one policy, and for the limits, the queue or both; the shadow of a queue is for all its
// policies.
func TestShadowOfOne(t *testing.T) {
	const text = `
queues: {jobs: {max_pending: 40}, tried: {max_pending: 40, shadow: true}}
policies:
  enforced: {match: [/enforced], queue: jobs, buckets: [{per: ip, burst: 1, rate: 1/d}]}
  limits: {match: [/limits], queue: jobs, shadow: limits, buckets: [{per: ip, burst: 1, rate: 1/d}]}
  queue: {match: [/queue], queue: jobs, shadow: queue, buckets: [{per: ip, burst: 1, rate: 1/d}]}
  both: {match: [/both], queue: jobs, shadow: true, buckets: [{per: ip, burst: 1, rate: 1/d}]}
  tried: {match: [/tried], queue: tried, buckets: [{per: ip, burst: 1, rate: 1/d}]}
`
	reg := prometheus.NewRegistry()
	for state, want := range map[backpressure.State]map[string]int{
		backpressure.StateFull: {"enforced": 503, "limits": 503, "queue": 429, "both": 200, "tried": 429},
		backpressure.StateOK:   {"enforced": 429, "limits": 200, "queue": 429, "both": 200, "tried": 429},
	} {
		var calls []string
		reg = prometheus.NewRegistry()
		s := New(withUsers(t), rulesOf(t, text, fakeQueue{&calls, state, false, state}), fakeLimiter{&calls, denies}, Traces{}, reg, slog.New(slog.DiscardHandler))
		for name, status200 := range want {
			if got := statusOf(request(t, s, "GET", "/"+name, "203.0.113.1")); got != status200 {
				t.Errorf("queue %s, policy %s: %d, want %d", state, name, got, status200)
			}
		}
	}
	for series, want := range map[string]float64{"limit enforced": 0, "queue enforced": 0, "limit limits": 1, "queue limits": 0, "limit queue": 0, "queue queue": 1, "limit both": 1, "queue both": 1, "queue tried": 1, "limit tried": 0} {
		check, name, _ := strings.Cut(series, " ")
		if got := metrictest.Value(t, reg, "refrakt_gate_shadow_active", "check", check, "policy", name); got != want {
			t.Errorf("shadow_active of %s: %v, want %v", series, got, want)
		}
	}
}

// TestUse: other rules are in force for the next request, and the series of policies that are gone are gone.
func TestUse(t *testing.T) {
	const before = `policies: {old: {match: [/x], buckets: [{per: ip, burst: 1, rate: 1/d}]}}`
	const after = `policies: {new: {match: [/x], buckets: [{per: ip, burst: 2, rate: 1/d}]}}`
	reg := prometheus.NewRegistry()
	s := New(withUsers(t), rulesOf(t, before, nil), quota.NewMemory(), Traces{}, reg, slog.New(slog.DiscardHandler))
	if got := statusOf(request(t, s, "GET", "/x", "203.0.113.1")); got != 200 {
		t.Fatal(got)
	}
	n := len(families(t, reg))
	for i := range 50 {
		s.Use(rulesOf(t, after, nil))
		if got := header(request(t, s, "GET", "/x", fmt.Sprint("203.0.113.", i)), "ratelimit-policy"); got != `"new";q=2;w=172800` {
			t.Fatal(got)
		}
		if f := families(t, reg); f["old"] > 0 || len(f) != n {
			t.Fatalf("series by policy after %d changes: %v", i, f)
		}
		s.Use(rulesOf(t, before, nil))
		if f := families(t, reg); f["new"] > 0 {
			t.Fatalf("series by policy: %v", f)
		}
	}
}

// families counts the series by their label policy.
func families(t *testing.T, reg *prometheus.Registry) map[string]int {
	t.Helper()
	got, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := make(map[string]int)
	for _, f := range got {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "policy" {
					n[l.GetValue()]++
				}
			}
		}
	}
	return n
}

// TestPolicyOfRoute: a policy that Envoy's route names counts, whatever the path is. A name that no policy has is a
// mistake of the route.
func TestPolicyOfRoute(t *testing.T) {
	s := serve(config(t), quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	for name, want := range map[string]string{
		"run /whatever": "run", "assistant /run": "assistant", "runn /run": policyUnknown, "Run /run": policyUnknown,
		"none /run": policyUnknown, " /assistant": "assistant", " /run": "run", " /ping": policyNone,
	} {
		extension, path, _ := strings.Cut(name, " ")
		req := checkRequest("203.0.113.9", path, true)
		if extension != "" {
			req.GetAttributes().ContextExtensions = map[string]string{"policy": extension}
		}
		resp, err := s.Check(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.GetDynamicMetadata().GetFields()["policy"].GetStringValue(); got != want {
			t.Errorf("%q: policy %s, want %s", name, got, want)
		}
	}
}
