package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// fakeLimiter answers what its function returns and notes the calls.
type fakeLimiter struct {
	calls *[]string
	take  func(ctx context.Context, l quota.Limit) (quota.Result, error)
}

func (f fakeLimiter) Take(ctx context.Context, req quota.Request) (quota.Result, error) {
	*f.calls = append(*f.calls, "take"+keys(req.Buckets))
	return f.take(ctx, req.Buckets[0].Limit)
}

func (f fakeLimiter) Refund(_ context.Context, _ quota.Result, buckets []quota.Bucket) error {
	*f.calls = append(*f.calls, "refund"+keys(buckets))
	return nil
}

func keys(buckets []quota.Bucket) (text string) {
	for _, b := range buckets {
		text += " " + b.Key
	}
	return text
}

type fakeQueue struct {
	calls       *[]string
	shed        backpressure.State
	provisional bool // Admit may find room; for requests that it sees
	admit       backpressure.State
}

// verdict notes it when the caller is told how long to wait.
func (f fakeQueue) verdict(s backpressure.State, caller string) backpressure.Verdict {
	if s == backpressure.StateOK {
		return backpressure.Verdict{State: s}
	}
	return backpressure.Verdict{State: s, RetryAfter: func() time.Duration {
		*f.calls = append(*f.calls, "told "+caller)
		return 33 * time.Second
	}}
}

func (f fakeQueue) Shed(a backpressure.Asker, addsJob bool) backpressure.Verdict {
	*f.calls = append(*f.calls, fmt.Sprintf("shed %s %v", a.Address, addsJob))
	v := f.verdict(f.shed, a.Address)
	v.Provisional = addsJob && f.provisional
	return v
}

func (f fakeQueue) Place(a backpressure.Asker) backpressure.Place {
	return backpressure.Place{Limit: 40, Caller: a.Sharer}
}

func (f fakeQueue) Admit(_ context.Context, a backpressure.Asker) backpressure.Verdict {
	*f.calls = append(*f.calls, "admit "+a.Address)
	return f.verdict(f.admit, a.Address)
}

func (f fakeQueue) Admitted(a backpressure.Asker, got backpressure.Admission, unreadable bool) backpressure.Verdict {
	*f.calls = append(*f.calls, fmt.Sprintf("admitted %s %v", a.Address, got.Admitted))
	switch {
	case unreadable:
		return f.verdict(backpressure.StateUnknown, a.Address)
	case got.OverShare:
		return f.verdict(backpressure.StateShare, a.Address)
	case !got.Admitted:
		return f.verdict(backpressure.StateFull, a.Address)
	default:
		return f.verdict(backpressure.StateOK, a.Address)
	}
}

var (
	tenTokens    = quota.Limit{Capacity: 10, Interval: 10 * time.Second}
	thirtyTokens = quota.Limits(10, 6, time.Minute, 1, 3)[1]
	takes        = func(_ context.Context, l quota.Limit) (quota.Result, error) {
		return quota.Result{Limit: l, Taken: true, Debt: l.Interval}, nil
	}
	denies = func(_ context.Context, l quota.Limit) (quota.Result, error) {
		return quota.Result{Limit: l, Debt: l.Span() - 1500*time.Millisecond}, nil
	}
	fails = func(context.Context, quota.Limit) (quota.Result, error) {
		return quota.Result{}, quota.ErrUnavailable
	}
	breaks = func(context.Context, quota.Limit) (quota.Result, error) {
		return quota.Result{}, errors.New("boom")
	}
)

// everywhere is the shadow mode of all policies of the preset.
var everywhere = shadowList("true")

func shadowList(text string) (list policy.ShadowList) {
	if err := list.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return list
}

// setup has settings, and the environment whose preset is in force.
type setup struct {
	Config
	policy.Environment
}

// config has both policies with 10 tokens, 6 a minute, and three times that for premium
// callers.
func config(t testing.TB) setup {
	return setup{Config{
		LimitEnabled: true, LimitFailureMode: FailLocal, QueueFailureMode: FailAllow, Headers: HeadersDraft,
		ClientIPHeader: "CF-Connecting-IP", TrustedProxies: proxies(t, defaultProxies), RedisTimeout: 100 * time.Millisecond,
		UserSources: UserSources{UserHeader, UserQuery}, MaxChecks: 100,
	}, policy.Environment{
		RunBurst: 10, RunPerMinute: 6, AssistantBurst: 10, AssistantPerMinute: 6, PremiumMultiplier: 3, QueueName: "default", MaxPending: 40,
	}}
}

// preset is the preset of an environment; queue may be nil.
func preset(env policy.Environment, queue Queue) Rules {
	rules := Rules{Policies: policy.Compile(env.File(queue != nil))}
	if queue != nil {
		rules.Queues = map[string]WatchedQueue{"default": {Queue: queue}}
	}
	return rules
}

// serve returns a server that decides by the preset.
func serve(s setup, limiter Limiter, queue Queue, reg prometheus.Registerer, log *slog.Logger) *Server {
	return New(s.Config, preset(s.Environment, queue), limiter, Traces{}, reg, log)
}

// compare checks the wire form of an answer; status 0 is OK.
func compare(t *testing.T, resp *authv3.CheckResponse, status int, body, retry string) {
	t.Helper()
	if _, err := proto.Marshal(resp); err != nil {
		t.Fatalf("the answer can't be marshalled: %v", err)
	}
	if status == 0 {
		if resp.GetStatus() == nil || resp.GetStatus().GetCode() != 0 || resp.GetOkResponse() == nil {
			t.Fatalf("not allowed: %v", resp)
		}
		return
	}
	denied := resp.GetDeniedResponse()
	if resp.GetStatus().GetCode() != int32(codes.PermissionDenied) || denied == nil {
		t.Fatalf("not denied with PERMISSION_DENIED: %v", resp)
	}
	if got := int(denied.GetStatus().GetCode()); got != status {
		t.Errorf("status %d, want %d", got, status)
	}
	if denied.GetBody() != body {
		t.Errorf("body %s, want %s", denied.GetBody(), body)
	}
	for name, want := range map[string]string{"retry-after": retry, "content-type": "application/json", "x-envoy-ratelimited": "true"} {
		if got := header(resp, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func headerOptions(resp *authv3.CheckResponse) []*corev3.HeaderValueOption {
	return slices.Concat(resp.GetDeniedResponse().GetHeaders(), resp.GetOkResponse().GetResponseHeadersToAdd())
}

func header(resp *authv3.CheckResponse, name string) string {
	for _, o := range headerOptions(resp) {
		if o.GetHeader().GetKey() == name {
			return o.GetHeader().GetValue()
		}
	}
	return ""
}

func TestHeaders(t *testing.T) {
	tests := map[HeaderForm]map[string]string{
		HeadersDraft:  {"ratelimit-policy": `"run";q=10;w=100`, "ratelimit": `"run";r=9;t=10`, "x-ratelimit-limit": ""},
		HeadersLegacy: {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "10", "ratelimit": ""},
		HeadersOff:    {"ratelimit": "", "ratelimit-policy": "", "x-ratelimit-limit": ""},
	}
	for form, want := range tests {
		cfg := config(t)
		cfg.Headers = form
		var calls []string
		s := serve(cfg, fakeLimiter{&calls, takes}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		resp, err := s.Check(t.Context(), checkRequest("203.0.113.9", "/run", true))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range want {
			if got := header(resp, name); got != value {
				t.Errorf("%s: %s: %q, want %q", form, name, got, value)
			}
		}
		for _, o := range headerOptions(resp) {
			if o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || o.GetAppend() != nil { //nolint:staticcheck // must be unset
				t.Errorf("%s: %s does not say that it overwrites", form, o.GetHeader().GetKey())
			}
		}
	}
}

// TestSwitch: a check is switched to shadow and back, for one policy, while the server runs.
func TestSwitch(t *testing.T) {
	var calls []string
	reg := prometheus.NewRegistry()
	s := serve(config(t), fakeLimiter{&calls, denies}, nil, reg, slog.New(slog.DiscardHandler))
	want := func(path string, status int) {
		t.Helper()
		resp, err := s.Check(t.Context(), checkRequest("203.0.113.9", path, true))
		if err != nil {
			t.Fatal(err)
		}
		if denied := resp.GetDeniedResponse(); int(denied.GetStatus().GetCode()) != status {
			t.Errorf("%s: %v, want %d", path, denied.GetStatus(), status)
		}
	}
	want("/run", 429)
	cfg := config(t)
	cfg.LimitShadow = shadowList("run")
	s.Use(preset(cfg.Environment, nil))
	want("/run", 0)
	want("/assistant", 429)
	for series, on := range map[[2]string]float64{{"limit", "run"}: 1, {"limit", "assistant"}: 0, {"queue", "run"}: 0, {"queue", "assistant"}: 0} {
		if got := metrictest.Value(t, reg, "refrakt_gate_shadow_active", "check", series[0], "policy", series[1]); got != on {
			t.Errorf("%v is shown as %v, want %v", series, got, on)
		}
	}
	s.Use(preset(config(t).Environment, nil))
	want("/run", 429)
	if n := metrictest.Value(t, reg, "refrakt_gate_shadow_denials_total", "policy", "run"); n != 1 {
		t.Errorf("%v shadow denials, want 1", n)
	}
}

// TestTooManyChecks: a Check above the limit gets a verdict at once, and costs no token.
func TestTooManyChecks(t *testing.T) {
	for mode, status := range map[FailureMode]int{FailLocal: http.StatusServiceUnavailable, FailDeny: http.StatusServiceUnavailable, FailAllow: 0} {
		inBubbleByCodec(t, string(mode), func(t *testing.T, codec string) {
			cfg := config(t)
			cfg.MaxChecks, cfg.LimitFailureMode = 2, mode
			release := make(chan struct{})
			var calls []string
			limiter := fakeLimiter{&calls, func(ctx context.Context, l quota.Limit) (quota.Result, error) {
				<-release
				return takes(ctx, l)
			}}
			reg := prometheus.NewRegistry()
			s := serve(cfg, limiter, nil, reg, slog.New(slog.DiscardHandler))
			ask := func(path string) *authv3.CheckResponse {
				return ask(t.Context(), t, codec, s, checkRequest("203.0.113.9", path, true))
			}
			first := make(chan *authv3.CheckResponse)
			go func() { first <- ask("/run") }()
			synctest.Wait()
			go func() { first <- ask("/run") }()
			synctest.Wait()
			if n := metrictest.Value(t, reg, "refrakt_gate_checks_in_progress"); n != 2 {
				t.Errorf("%v in progress, want 2", n)
			}
			compare(t, ask("/run"), status, `{"detail":"The gateway is overloaded. Please retry later."}`, "5")
			if ask("/ping").GetStatus().GetCode() != 0 {
				t.Error("a request that is not guarded is denied")
			}
			close(release)
			compare(t, <-first, 0, "", "")
			compare(t, <-first, 0, "", "")
			compare(t, ask("/run"), 0, "", "") // there is room again
			if n := metrictest.Value(t, reg, "refrakt_gate_decisions_total", "policy", "run", "reason", "overloaded"); n != 1 {
				t.Errorf("counted %v times, want once", n)
			}
			if len(calls) != 3 {
				t.Errorf("the limiter was asked %q", calls)
			}
		})
	}
}

// TestTooManyChecksInShadow: a Check above the limit is denied unless both checks are in shadow mode.
func TestTooManyChecksInShadow(t *testing.T) {
	for _, tt := range []struct {
		limit, queue policy.ShadowList
		status       int
	}{
		{policy.ShadowList{}, policy.ShadowList{}, 503}, {everywhere, policy.ShadowList{}, 503}, {policy.ShadowList{}, everywhere, 503}, {everywhere, everywhere, 0},
		{shadowList("run"), shadowList("assistant"), 503},
	} {
		cfg := config(t)
		cfg.MaxChecks, cfg.Switches = 0, policy.Switches{LimitShadow: tt.limit, QueueShadow: tt.queue}
		var calls []string
		s := serve(cfg, fakeLimiter{&calls, takes}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		resp, err := s.Check(t.Context(), checkRequest("203.0.113.9", "/run", true))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, resp, tt.status, `{"detail":"The gateway is overloaded. Please retry later."}`, "5")
		if shadow := resp.GetDynamicMetadata().AsMap()["shadow"]; shadow != (tt.status == 0) {
			t.Errorf("%+v: shadow is %v", tt, shadow)
		}
	}
}

// TestDeadline checks how long Check waits for a limiter that hangs.
func TestDeadline(t *testing.T) {
	tests := map[string]struct{ envoy, want time.Duration }{
		"none of Envoy's":    {0, 100 * time.Millisecond},
		"Envoy's is longer":  {time.Second, 100 * time.Millisecond},
		"Envoy's is shorter": {40 * time.Millisecond, 30 * time.Millisecond},
		"Envoy's has passed": {-time.Second, 0},
	}
	for name, tt := range tests {
		inBubbleByCodec(t, name, func(t *testing.T, codec string) {
			ctx := t.Context()
			if tt.envoy != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.envoy)
				defer cancel()
			}
			var calls []string
			limiter := fakeLimiter{&calls, func(ctx context.Context, _ quota.Limit) (quota.Result, error) {
				<-ctx.Done()
				return quota.Result{}, errors.Join(quota.ErrUnavailable, ctx.Err())
			}}
			cfg := config(t)
			cfg.LimitFailureMode = FailDeny
			s := serve(cfg, limiter, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			start := time.Now()
			resp := ask(ctx, t, codec, s, checkRequest("203.0.113.9", "/run", true))
			if waited := time.Since(start); waited != tt.want {
				t.Errorf("waited %v, want %v", waited, tt.want)
			}
			compare(t, resp, 503, `{"detail":"The rate limiter is unavailable. Please retry later."}`, "5")
		})
	}
}

// TestMalformed sends requests that no Envoy would send. Each gets a verdict.
func TestMalformed(t *testing.T) {
	noHTTP := checkRequest("203.0.113.9", "/run", true)
	noHTTP.Attributes.Request = nil
	nilLine := checkRequest("203.0.113.9", "/run", true)
	nilLine.Attributes.Request.Http.HeaderMap.Headers = []*corev3.HeaderValue{nil, {}}
	tests := map[string]*authv3.CheckRequest{
		"nil":                  nil,
		"empty":                {},
		"empty attributes":     {Attributes: &authv3.AttributeContext{}},
		"no HTTP":              noHTTP,
		"no path":              checkRequest("203.0.113.9", "", true),
		"nil header lines":     nilLine,
		"a header of 1 MB":     checkRequest("10.0.0.1", "/run", true, line{"x-forwarded-for", strings.Repeat("1.1.1.1,", 1<<17)}, line{"x-user-id", strings.Repeat("x", 1<<20)}),
		"a path of 1 MB":       checkRequest("10.0.0.1", "/run"+strings.Repeat("/.;%0a", 150_000)+"?"+strings.Repeat("user_id=%ff&", 80_000), true),
		"a value, no UTF-8":    checkRequest("203.0.113.9", "/run", true, line{"x-user-id", "\xff"}, line{"cf-connecting-ip", "\xff"}),
		"10,000 hops":          checkRequest("10.0.0.1", "/run", false, line{"x-forwarded-for", strings.Repeat("10.0.0.1,", 10_000)}),
		"an extension of 1 MB": {Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{"policy": strings.Repeat("x", 1<<20)}}},
	}
	for name, req := range tests {
		byCodec(t, name, func(t *testing.T, codec string) {
			s := serve(config(t), quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			for i := range 11 {
				resp := ask(t.Context(), t, codec, s, req)
				// No request gets around the limit: the eleventh is denied.
				if denied := resp.GetStatus().GetCode() != 0; i == 10 && !denied {
					t.Error("eleven requests passed a bucket of ten")
				}
			}
		})
	}
}

// TestNoUTF8: text that is no UTF-8 is no protobuf, but gets a verdict where it can be
// read.
func TestNoUTF8(t *testing.T) {
	const mark = "~" // becomes such a byte
	for name, req := range map[string]*authv3.CheckRequest{
		"peer, path, header": checkRequest(mark, "/run?user_id="+mark, false, line{"x-user-id", mark}, line{mark, ""}),
		"policy":             {Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{"policy": mark}}},
	} {
		request := bytes.ReplaceAll(encode(t, req), []byte(mark), []byte("\xff"))
		if _, err := codecs["standard"](t.Context(), nil, request); err == nil {
			t.Fatalf("%s: the generated code reads it", name)
		}
		s := serve(config(t), quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		for i := range 11 {
			resp := decode(t, func() ([]byte, error) { return codecs["wire"](t.Context(), s, request) })
			if denied := resp.GetStatus().GetCode() != 0; i == 10 && !denied {
				t.Errorf("%s: eleven requests passed a bucket of ten", name)
			}
		}
	}
}

// TestNothingPrivateInLogs checks that the log holds no address and no user, even at debug.
func TestNothingPrivateInLogs(t *testing.T) {
	var log strings.Builder
	s := serve(config(t), quota.NewMemory(), nil, prometheus.NewRegistry(),
		slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for codec := range codecs {
		ask(t.Context(), t, codec, s, checkRequest("203.0.113.9", "/run?user_id=secret-q", true, line{"x-user-id", "secret-user"}))
	}
	if !strings.Contains(log.String(), "decided") {
		t.Error("no line at debug")
	}
	for _, private := range []string{"203.0.113.9", "secret"} {
		if strings.Contains(log.String(), private) {
			t.Errorf("the log shows %s:\n%s", private, log.String())
		}
	}
}

// BenchmarkCheck is a request by each codec: allowed, with the buckets in memory, and
// refused because the queue is full. Traced, its span goes to nobody.
func BenchmarkCheck(b *testing.B) {
	for _, tt := range []struct {
		name    string
		queue   Queue
		callers int         // exceptions for other callers
		sampler sdk.Sampler // nil: nothing is traced
	}{
		{"allowed", nil, 0, nil},
		{"allowed with 100,000 exceptions", nil, 100_000, nil},
		{"shed", full{}, 0, nil},
		{"allowed, traced", nil, 0, sdk.AlwaysSample()},
		{"allowed, traced but not sampled", nil, 0, sdk.NeverSample()},
	} {
		cfg := config(b)
		cfg.RunBurst, cfg.RunPerMinute, cfg.PremiumMultiplier = 1_000_000, 30_000, 1
		rules, name := preset(cfg.Environment, tt.queue), tt.name
		if tt.callers > 0 {
			file := *rules.Policies.File()
			for i := range tt.callers {
				ip := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
				file.Callers = append(file.Callers, policy.Caller{IP: netip.PrefixFrom(ip, 32), Then: policy.Treatment{Deny: true}})
			}
			rules.Policies = policy.Compile(&file)
		}
		var traces Traces
		if tt.sampler != nil {
			traces = Traces{Tracer: sdk.NewTracerProvider(sdk.WithSampler(tt.sampler)).Tracer("bench"), Parents: true}
		}
		s := New(cfg.Config, rules, quota.NewMemory(), traces, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		requests := make([][]byte, 1000)
		for i := range requests {
			requests[i] = encode(b, checkRequest("10.0.0.1", "/run?a=1", true,
				line{"cf-connecting-ip", fmt.Sprintf("203.0.%d.%d", i/250, i%250)}, line{"x-user-id", fmt.Sprint(i)},
				line{"accept", "*/*"}, line{"user-agent", "Mozilla/5.0"}, line{"content-type", "application/json"}))
		}
		for codec, ask := range codecs {
			b.Run(name+"/"+codec, func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, err := ask(b.Context(), s, requests[i%len(requests)]); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// full is a queue without room; nobody asks it anything else.
type full struct{ Queue }

func (full) Shed(backpressure.Asker, bool) backpressure.Verdict {
	return backpressure.Verdict{State: backpressure.StateFull, RetryAfter: func() time.Duration { return 33 * time.Second }}
}
