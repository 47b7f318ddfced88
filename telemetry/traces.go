package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/refrakt-hub/refrakt-gate/internal/condition"
)

// flushTimeout is how long Stop may take to send the last spans.
const flushTimeout = 2 * time.Second

// Traces sends spans to a collector.
type Traces struct {
	provider *sdk.TracerProvider
	exporter *countedExporter
	version  string
}

// NewTraces returns the sender of spans that cfg, which is valid, asks for. It connects
// when there are spans. Call Stop to send the last ones.
func NewTraces(cfg TracesConfig, version string, reg prometheus.Registerer, log *slog.Logger) (*Traces, error) {
	// The OpenTelemetry SDK has one logger and one handler of errors for the process.
	otel.SetLogger(logr.FromSlogHandler(log.Handler()))
	problems := condition.New(log, "the OpenTelemetry SDK reports a problem", "")
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { problems.Fail(err) }))
	ctx := context.Background() // nothing is connected here
	exporter, err := newExporter(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("prepare to send traces: %w", err)
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceVersion(version)),
		resource.WithFromEnv(), // OTEL_RESOURCE_ATTRIBUTES
		resource.WithAttributes(semconv.ServiceName(cfg.ServiceName)),
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t := &Traces{version: version, exporter: &countedExporter{
		SpanExporter: exporter,
		state:        condition.New(log, "traces are lost: the collector does not take them", "the collector takes traces again"),
		exported: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_spans_exported_total",
			Help: "Spans that the collector has taken.",
		}),
	}}
	ended := &endedSpans{promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "refrakt_gate_spans_ended_total",
		Help: "Spans that were to be exported. Those that were not are lost, but for the newest few seconds.",
	})}
	t.provider = sdk.NewTracerProvider(
		sdk.WithSampler(cfg.sampler()),
		sdk.WithResource(res),
		sdk.WithSpanProcessor(ended),
		sdk.WithBatcher(t.exporter),
	)
	return t, nil
}

func newExporter(ctx context.Context, cfg TracesConfig) (sdk.SpanExporter, error) {
	headers, err := cfg.headers()
	if err != nil {
		return nil, err
	}
	if cfg.protocol() == protocolGRPC {
		return otlptrace.New(ctx, otlptracegrpc.NewClient(otlptracegrpc.WithHeaders(headers)))
	}
	return otlptrace.New(ctx, otlptracehttp.NewClient(otlptracehttp.WithHeaders(headers)))
}

// Tracer returns the tracer of the gate.
func (t *Traces) Tracer() trace.Tracer {
	return t.provider.Tracer("github.com/refrakt-hub/refrakt-gate", trace.WithInstrumentationVersion(t.version))
}

// Lost says that the newest export failed.
func (t *Traces) Lost() bool { return t.exporter.failing.Load() }

// Stop sends the spans that were not sent yet, for two seconds at most. Spans that end
// after that are lost.
func (t *Traces) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.exporter.state.Fail(err)
	}
}

// countedExporter counts and logs what becomes of the spans.
type countedExporter struct {
	sdk.SpanExporter

	state    *condition.Condition
	failing  atomic.Bool
	exported prometheus.Counter
}

// ExportSpans implements [sdk.SpanExporter]. It returns no error, because the error has
// been logged.
func (e *countedExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.failing.Store(err != nil)
	if err != nil {
		e.state.Fail(err)
		return nil
	}
	e.state.Succeed()
	e.exported.Add(float64(len(spans)))
	return nil
}

// endedSpans counts the spans that are to be exported.
type endedSpans struct{ count prometheus.Counter }

func (*endedSpans) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements [sdk.SpanProcessor]. Spans that were not sampled do not come here.
func (e *endedSpans) OnEnd(s sdk.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		e.count.Inc()
	}
}

func (*endedSpans) Shutdown(context.Context) error { return nil }

func (*endedSpans) ForceFlush(context.Context) error { return nil }
