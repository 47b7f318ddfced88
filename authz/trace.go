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

// traceparent is the header of W3C Trace Context (www.w3.org/TR/trace-context) that says to
// which trace a request belongs. What tracestate says besides is not read: it is text of
// the client's, or of whoever it has passed by.
const traceparent = "traceparent"

// maxTraceparent is the longest such header that is read, in bytes. It has 55 bytes, and
// more in a future version.
const maxTraceparent = 128

// rpcName is the name of a Check, by OpenTelemetry's conventions for gRPC.
var rpcName = strings.TrimPrefix(authv3.Authorization_Check_FullMethodName, "/")

var rpcAttributes = trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(rpcName))

// Traces says how Checks are traced. With the zero value, they are not.
type Traces struct {
	// Tracer makes the spans. If it is nil, there are none.
	Tracer trace.Tracer
	// Parents says that a request says to which trace it belongs. If it is false, each begins
	// one.
	Parents bool
}

// start begins the span of a Check that began at the time begun, and returns ctx with it.
func (t Traces) start(ctx context.Context, begun time.Time, r envoy.Request) (context.Context, trace.Span) {
	parent := ctx
	if t.Parents {
		parent = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: traceOf(ctx, r)})
	}
	_, span := t.Tracer.Start(parent, rpcName, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(begun), rpcAttributes)
	return trace.ContextWithSpan(ctx, span), span
}

// traceOf says to which trace a request belongs. An Envoy that traces says it of its call
// to the gate. Else the header of the client's request counts, as Envoy shows it.
func traceOf(ctx context.Context, r envoy.Request) string {
	value, _ := r.Header(traceparent)
	if called := metadata.ValueFromIncomingContext(ctx, traceparent); len(called) > 0 {
		value = called[0]
	}
	if len(value) > maxTraceparent {
		return ""
	}
	return value
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
