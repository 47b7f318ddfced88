package redistrace_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistrace"
)

// world is a Redis whose client makes spans.
type world struct {
	*redis.Client

	spans  *tracetest.SpanRecorder
	tracer trace.Tracer
}

func newWorld(t *testing.T) world {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	w := world{redistest.Start(t).Client(t), spans, sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)).Tracer("test")}
	w.AddHook(redistrace.NewHook(w.tracer))
	return w
}

// request begins a request that is traced.
func (w world) request(t *testing.T) context.Context {
	ctx, _ := w.tracer.Start(t.Context(), "request")
	return ctx
}

// ended are the spans that have ended: for each its parent, its name and its attributes.
// Those by which the client introduces itself on a new connection are left out.
func (w world) ended() []string {
	var all []string
	for _, s := range w.spans.Ended() {
		if s.Name() == "HELLO" || strings.HasSuffix(s.Name(), "CLIENT") {
			continue
		}
		text := fmt.Sprint(s.Parent().SpanID(), " ", s.SpanKind(), " ", s.Name())
		for _, a := range s.Attributes() {
			text += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
		}
		if s.Status().Code == codes.Error {
			text += " failed" + s.Status().Description
		}
		all = append(all, text)
	}
	return all
}

func id(ctx context.Context) string { return trace.SpanContextFromContext(ctx).SpanID().String() }

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("spans:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.request(t), w.request(t)

	w.Get(t.Context(), "untraced")
	w.Get(one, "users:secret")
	w.Eval(one, "return redis.error_reply('NOPE of 203.0.113.9')", nil)
	_, _ = w.Pipelined(one, func(p redis.Pipeliner) error {
		p.Get(one, "a")
		return p.Get(one, "b").Err()
	})
	_, _ = w.Pipelined(two, func(p redis.Pipeliner) error {
		p.Get(two, "a")
		return p.Set(two, "b", 1, 0).Err()
	})
	w.EvalSha(share(t.Context(), one, t.Context(), two), "0000", nil)

	const redis = " client "
	want(t, w.ended(),
		id(one)+redis+"GET db.system.name=redis db.operation.name=GET",
		id(one)+redis+"EVAL db.system.name=redis db.operation.name=EVAL error.type=NOPE failed",
		id(one)+redis+"PIPELINE GET db.system.name=redis db.operation.name=PIPELINE GET db.operation.batch.size=2",
		id(two)+redis+"PIPELINE db.system.name=redis db.operation.name=PIPELINE db.operation.batch.size=2",
		id(one)+redis+"EVALSHA db.system.name=redis db.operation.name=EVALSHA db.operation.batch.size=2 error.type=NOSCRIPT failed",
		id(two)+redis+"EVALSHA db.system.name=redis db.operation.name=EVALSHA db.operation.batch.size=2 error.type=NOSCRIPT failed",
	)
}

// TestErrors: spans have the kind of an error, and never its text.
func TestErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := w.request(t)
	late, cancel := context.WithTimeout(ctx, time.Nanosecond)
	defer cancel()
	w.Get(late, "k")
	over, stop := context.WithCancel(ctx)
	stop()
	w.Get(over, "k")
	w.Eval(ctx, "return redis.error_reply('what: 203.0.113.9')", nil)
	_ = w.Close()
	w.Get(ctx, "k")

	const redis, get = " client ", "GET db.system.name=redis db.operation.name=GET"
	want(t, w.ended(),
		id(ctx)+redis+get+" error.type=timeout failed",
		id(ctx)+redis+get+" error.type=canceled failed",
		id(ctx)+redis+"EVAL db.system.name=redis db.operation.name=EVAL error.type=reply failed",
		id(ctx)+redis+get+" error.type=connection failed",
	)
}

// TestNotSampled: a request that is not sampled has no spans of its trips, and shares none.
func TestNotSampled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dropped := sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())).Tracer("test")
	ctx, _ := dropped.Start(t.Context(), "request")
	w.Get(ctx, "k")
	if share(t.Context(), ctx) != t.Context() {
		t.Error("a request that is not sampled shares a call")
	}
	want(t, w.ended())
}

// share is the context of a call that these requests share.
func share(ctx context.Context, all ...context.Context) context.Context {
	var shared redistrace.Requests
	for _, request := range all {
		shared.Add(request)
	}
	return shared.Context(ctx)
}

// something is the key of what a request's context has.
type something struct{}

// BenchmarkShare is what a request that is not traced costs a shared call.
func BenchmarkShare(b *testing.B) {
	ctx, request := b.Context(), context.WithValue(b.Context(), something{}, 1)
	b.ReportAllocs()
	for b.Loop() {
		ctx = share(ctx, request)
	}
}

// TestShareIsFree: without traces, sharing a call allocates nothing.
func TestShareIsFree(t *testing.T) {
	ctx, request := t.Context(), context.WithValue(t.Context(), something{}, 1)
	if n := testing.AllocsPerRun(100, func() { ctx = share(ctx, request) }); n != 0 {
		t.Errorf("%v allocations for a request that is not traced", n)
	}
}
