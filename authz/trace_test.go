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
	return New(s.Config, preset(s.Environment, queue), limiter, Traces{tracer, true}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler)), spans
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
	const client, ofEnvoy = "b7ad6b7169203331", "00f067aa0ba902b7"
	for name, tt := range map[string]struct {
		call    []string // metadata of Envoy's call
		headers []line   // of the client's request
		parent  string
	}{
		"no trace":                {nil, nil, none},
		"the client's":            {nil, []line{{traceparent, traceOfClient}, {"tracestate", "vendor=secret"}}, client},
		"Envoy's":                 {[]string{traceparent, traceOfEnvoy, "tracestate", "vendor=secret"}, nil, ofEnvoy},
		"Envoy's before client's": {[]string{traceparent, traceOfEnvoy}, []line{{traceparent, traceOfClient}}, ofEnvoy},
		"Envoy's, broken":         {[]string{traceparent, "?"}, []line{{traceparent, traceOfClient}}, none},
		"two":                     {nil, []line{{traceparent, traceOfClient}, {traceparent, traceOfClient}}, none},
		"broken":                  {nil, []line{{traceparent, strings.Repeat("0", 55)}}, none},
		"of the future":           {nil, []line{{traceparent, "01" + traceOfClient[2:] + "-secret"}}, client},
		"very long":               {nil, []line{{traceparent, "01" + traceOfClient[2:] + "-" + strings.Repeat("x", 100)}}, none},
	} {
		for _, raw := range []bool{true, false} {
			byCodec(t, name, func(t *testing.T, codec string) {
				for _, parents := range []bool{true, false} {
					s, spans := traced(config(t), quota.NewMemory(), nil)
					s.traces.Parents = parents
					ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(tt.call...))
					ask(ctx, t, codec, s, checkRequest("10.0.0.1", "/run", raw, tt.headers...))
					ended := spans.Ended()
					if len(ended) != 1 {
						t.Fatalf("%d spans, want 1", len(ended))
					}
					want := tt.parent
					if !parents {
						want = none
					}
					if got := ended[0].Parent().SpanID().String(); got != want {
						t.Errorf("with parents: %v; the parent is %s, want %s", parents, got, want)
					}
					if whole := marshal(t, tracetest.SpanStubFromReadOnlySpan(ended[0])); strings.Contains(whole, "secret") {
						t.Errorf("the span shows what the client sent:\n%s", whole)
					}
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

// TestNoTraceNoContext: a Check that is not traced hands on the context that it would without traces. Another one would
// be an allocation.
func TestNoTraceNoContext(t *testing.T) {
	limiter := limiterFunc(func(ctx context.Context, _ quota.Request) (quota.Result, error) {
		if _, ok := ctx.(*budget); !ok {
			t.Errorf("the limiter is asked within a %T", ctx)
		}
		return quota.Result{Taken: true, Limit: tenTokens}, nil
	})
	s := serve(config(t), limiter, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	ask(t.Context(), t, "wire", s, checkRequest("10.0.0.1", "/run", true, line{traceparent, traceOfClient}))
}
