package authz

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// traced returns a server that decides by the preset and makes spans.
func traced(s setup, limiter Limiter, queue Queue) (*Server, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)).Tracer("test")
	return New(s.Config, preset(s.Environment, queue), limiter, tracer, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)), spans
}

// The contexts of traces, as Envoy and a client send them.
const (
	traceOfClient = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	traceOfEnvoy  = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
)

// TestParentOfSpan: Envoy's call says to which trace a Check belongs, else the header of
// the client's request does. What can't be understood begins a new trace.
func TestParentOfSpan(t *testing.T) {
	none := trace.SpanContext{}.SpanID().String()
	long := "a=" + strings.Repeat("x", 600)
	for name, tt := range map[string]struct {
		call    []string // metadata of Envoy's call
		headers []line   // of the client's request
		parent  string
		state   string
	}{
		"no trace":                 {nil, nil, none, ""},
		"the client's":             {nil, []line{{traceparent, traceOfClient}, {tracestate, "vendor=1"}}, "b7ad6b7169203331", "vendor=1"},
		"Envoy's":                  {[]string{traceparent, traceOfEnvoy, tracestate, "a=1", tracestate, "b=2"}, nil, "00f067aa0ba902b7", "a=1,b=2"},
		"Envoy's before client's":  {[]string{traceparent, traceOfEnvoy}, []line{{traceparent, traceOfClient}, {tracestate, "vendor=1"}}, "00f067aa0ba902b7", ""},
		"Envoy's, broken":          {[]string{traceparent, "?"}, []line{{traceparent, traceOfClient}}, none, ""},
		"two":                      {nil, []line{{traceparent, traceOfClient}, {traceparent, traceOfClient}}, none, ""},
		"broken":                   {nil, []line{{traceparent, strings.Repeat("0", 55)}}, none, ""},
		"very long":                {nil, []line{{traceparent, traceOfClient + "-" + long}}, none, ""},
		"with a very long state":   {nil, []line{{traceparent, traceOfClient}, {tracestate, long}}, "b7ad6b7169203331", ""},
		"with a state of two rows": {nil, []line{{traceparent, traceOfClient}, {tracestate, "a=1"}, {tracestate, "b=2"}}, "b7ad6b7169203331", "a=1,b=2"},
	} {
		for _, raw := range []bool{true, false} {
			byCodec(t, name, func(t *testing.T, codec string) {
				s, spans := traced(config(t), quota.NewMemory(), nil)
				ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(tt.call...))
				ask(ctx, t, codec, s, checkRequest("10.0.0.1", "/run", raw, tt.headers...))
				ended := spans.Ended()
				if len(ended) != 1 {
					t.Fatalf("%d spans, want 1", len(ended))
				}
				parent := ended[0].Parent()
				if got := parent.SpanID().String(); got != tt.parent {
					t.Errorf("the parent is %s, want %s", got, tt.parent)
				}
				if got := parent.TraceState().String(); got != tt.state {
					t.Errorf("the state of the trace is %q, want %q", got, tt.state)
				}
			})
		}
	}
}

// TestSpan: a span says what was decided, and nothing about who asked.
func TestSpan(t *testing.T) {
	var calls []string
	broken := limiterFunc(func(context.Context, quota.Request) (quota.Result, error) { panic("boom") })
	for name, tt := range map[string]struct {
		path    string
		limiter Limiter
		queue   Queue
		want    map[string]string
		failed  bool
	}{
		"allowed":     {"/run", fakeLimiter{&calls, takes}, nil, map[string]string{"policy": "run", "verdict": "allow", "reason": "ok"}, false},
		"refused":     {"/assistant", fakeLimiter{&calls, denies}, nil, map[string]string{"policy": "assistant", "verdict": "deny", "reason": "rate_limited"}, false},
		"full":        {"/run", fakeLimiter{&calls, takes}, full{}, map[string]string{"policy": "run", "verdict": "deny", "reason": "queue_full"}, false},
		"not guarded": {"/secret-path", fakeLimiter{&calls, takes}, nil, map[string]string{"policy": "none", "verdict": "allow", "reason": "not_guarded"}, false},
		"failed":      {"/run", broken, nil, map[string]string{"policy": "run", "verdict": "deny", "reason": "internal"}, true},
	} {
		byCodec(t, name, func(t *testing.T, codec string) {
			s, spans := traced(config(t), tt.limiter, tt.queue)
			ask(t.Context(), t, codec, s, checkRequest("10.0.0.1", tt.path+"?user_id=secret-user", true,
				line{"cf-connecting-ip", "203.0.113.9"}, line{"x-user-id", "secret-user"}))
			ended := spans.Ended()
			if len(ended) != 1 {
				t.Fatalf("%d spans, want 1", len(ended))
			}
			want := map[string]string{
				"rpc.system.name": "grpc", "rpc.method": "envoy.service.auth.v3.Authorization/Check", "rpc.response.status_code": "OK",
			}
			for key, value := range tt.want {
				want["refrakt.gate."+key] = value
			}
			if tt.failed {
				want["error.type"] = "internal"
			}
			got := map[string]string{}
			for _, a := range ended[0].Attributes() {
				got[string(a.Key)] = a.Value.String()
			}
			if text, wanted := marshal(t, got), marshal(t, want); text != wanted {
				t.Errorf("attributes:\n%s\nwant:\n%s", text, wanted)
			}
			if failed := ended[0].Status().Code == codes.Error; failed != tt.failed {
				t.Errorf("the span is marked as failed: %v", failed)
			}
			if ended[0].SpanKind() != trace.SpanKindServer || ended[0].Name() != "envoy.service.auth.v3.Authorization/Check" {
				t.Errorf("the span is a %v named %s", ended[0].SpanKind(), ended[0].Name())
			}
			whole := marshal(t, tracetest.SpanStubFromReadOnlySpan(ended[0]))
			for _, private := range []string{"secret", "203.0.113", "10.0.0.1"} {
				if strings.Contains(whole, private) {
					t.Errorf("the span shows %s:\n%s", private, whole)
				}
			}
		})
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// limiterFunc is a limiter of one function.
type limiterFunc func(context.Context, quota.Request) (quota.Result, error)

func (f limiterFunc) Take(ctx context.Context, req quota.Request) (quota.Result, error) {
	return f(ctx, req)
}

func (limiterFunc) Refund(context.Context, quota.Result, []quota.Bucket) error { return nil }

// TestLimiterSeesSpan: the limiter's trips to Redis become children of the Check's span.
func TestLimiterSeesSpan(t *testing.T) {
	var inside trace.SpanContext
	limiter := limiterFunc(func(ctx context.Context, _ quota.Request) (quota.Result, error) {
		inside = trace.SpanContextFromContext(ctx)
		return quota.Result{Taken: true, Limit: tenTokens}, nil
	})
	s, spans := traced(config(t), limiter, nil)
	ask(t.Context(), t, "wire", s, checkRequest("10.0.0.1", "/run", true))
	if ended := spans.Ended(); len(ended) != 1 || ended[0].SpanContext().SpanID() != inside.SpanID() {
		t.Errorf("the limiter is asked within %v, the spans are %v", inside, ended)
	}
}
