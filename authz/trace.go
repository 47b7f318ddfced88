package authz

import (
	"context"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// The attributes of a span that say what was decided. A span has no user, no address and
// no path.
const (
	attributePolicy  = attribute.Key("refrakt.gate.policy")
	attributeVerdict = attribute.Key("refrakt.gate.verdict")
	attributeReason  = attribute.Key("refrakt.gate.reason")
)

// The headers of W3C Trace Context (www.w3.org/TR/trace-context).
const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
	// maxTraceHeader is the longest of these headers that is read, in bytes. A client may
	// write more, but no proxy has to pass it on.
	maxTraceHeader = 512
)

// rpcName is the name of a Check, by OpenTelemetry's conventions for gRPC.
var rpcName = strings.TrimPrefix(authv3.Authorization_Check_FullMethodName, "/")

var rpcAttributes = trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(rpcName))

// startSpan begins the span of a Check that began at start, and returns ctx with it.
func startSpan(ctx context.Context, tracer trace.Tracer, start time.Time, r envoy.Request) (context.Context, trace.Span) {
	parent := propagation.TraceContext{}.Extract(ctx, traceHeaders(ctx, r))
	_, span := tracer.Start(parent, rpcName, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start), rpcAttributes)
	return trace.ContextWithSpan(ctx, span), span
}

// traceHeaders says to which trace a request belongs. An Envoy that traces says it of its
// call to the gate. Else a header of the client's request counts, as Envoy shows it. What
// it returns does not share memory with r.
func traceHeaders(ctx context.Context, r envoy.Request) propagation.MapCarrier {
	called := metadata.ValueFromIncomingContext(ctx, traceparent)
	fromEnvoy := len(called) > 0
	headers := propagation.MapCarrier{}
	for _, name := range []string{traceparent, tracestate} {
		var value string
		if fromEnvoy {
			value = strings.Join(metadata.ValueFromIncomingContext(ctx, name), ",")
		} else {
			value, _ = r.Header(name)
		}
		if value != "" && len(value) <= maxTraceHeader {
			headers[name] = strings.Clone(value)
		}
	}
	return headers
}

// endSpan ends the span of a Check with what was decided. Envoy always gets an answer, so
// the code of the call is OK, whatever was decided.
func endSpan(span trace.Span, d *Decision) {
	span.SetAttributes(
		semconv.RPCResponseStatusCode("OK"),
		attributePolicy.String(d.Policy),
		attributeVerdict.String(verdict(d.Denied)),
		attributeReason.String(string(d.Reason)),
	)
	if d.Reason == ReasonInternal {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(semconv.ErrorTypeKey.String(string(d.Reason)))
	}
	span.End()
}
