// Package redistrace makes spans of the trips to Redis that traced requests wait for. The
// spans follow OpenTelemetry's conventions for Redis, but have no address, no key and no
// argument: these hold users and addresses of clients.
package redistrace

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// key is the key under which a context has the spans of the requests that share a call, as
// Requests.
type key struct{}

// Requests are the requests that share a call to Redis. Each of them that is traced gets a
// span of the call. The zero value has none.
type Requests []trace.Span

// Add adds the request of a context, if it is traced.
func (r *Requests) Add(ctx context.Context) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		*r = append(*r, span)
	}
}

// Context returns ctx as the context of the call: ctx itself if no request is traced.
func (r Requests) Context(ctx context.Context) context.Context {
	if len(r) == 0 {
		return ctx
	}
	return context.WithValue(ctx, key{}, r)
}

// Hook makes a span for each command, or pipeline of commands, that a client sends on
// behalf of a traced request.
type Hook struct{ tracer trace.Tracer }

var _ redis.Hook = Hook{}

// NewHook returns a hook that makes its spans with tracer.
func NewHook(tracer trace.Tracer) Hook { return Hook{tracer} }

// DialHook implements [redis.Hook]. A connection is made within the trip that needs it.
func (h Hook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (h Hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		trip := h.start(ctx, 1, func() string { return cmd.FullName() })
		err := next(ctx, cmd)
		trip.end(err)
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (h Hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		trip := h.start(ctx, len(cmds), func() string { return operations(cmds) })
		err := next(ctx, cmds)
		trip.end(err)
		return err
	}
}

// trip has one span for each request that waits for it.
type trip []trace.Span

func (h Hook) start(ctx context.Context, commands int, operation func() string) trip {
	waiting, shared := ctx.Value(key{}).(Requests)
	if !shared {
		waiting.Add(ctx)
	}
	if len(waiting) == 0 {
		return nil
	}
	name := strings.ToUpper(operation())
	attributes := []attribute.KeyValue{semconv.DBSystemNameRedis, semconv.DBOperationName(name)}
	if size := max(commands, len(waiting)); size > 1 {
		attributes = append(attributes, semconv.DBOperationBatchSize(size))
	}
	begun := make(trip, len(waiting))
	for i, parent := range waiting {
		_, begun[i] = h.tracer.Start(trace.ContextWithSpan(ctx, parent), name,
			trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	}
	return begun
}

func (t trip) end(err error) {
	kind := errorType(err)
	for _, span := range t {
		if kind != "" {
			span.SetStatus(codes.Error, "")
			span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		}
		span.End()
	}
}

// operations is the name of a pipeline: of the commands in it if they are alike.
func operations(cmds []redis.Cmder) string {
	for _, cmd := range cmds {
		if cmd.FullName() != cmds[0].FullName() {
			return "PIPELINE"
		}
	}
	return "PIPELINE " + cmds[0].FullName() // a pipeline without a command is not sent
}

// errorType is the kind of an error: "" for none. The text of an error is not for spans,
// because it can name addresses and keys.
func errorType(err error) string {
	var timeout net.Error
	var reply redis.Error
	switch {
	case err == nil, errors.Is(err, redis.Nil):
		return ""
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &reply):
		// An error of Redis begins with its code: "OOM command not allowed …".
		code, _, _ := strings.Cut(reply.Error(), " ")
		if code != "" && strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
			return code
		}
		return "reply"
	default:
		return "connection"
	}
}
