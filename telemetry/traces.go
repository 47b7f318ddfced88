package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"

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
	shorten := cleaner(cfg.headers())
	// The OpenTelemetry SDK has one logger and one handler of errors for the process.
	otel.SetLogger(logr.Discard())
	problems := condition.New(log, "the OpenTelemetry SDK reports a problem", "")
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { problems.Fail(shorten(err)) }))
	exporter, err := newExporter(cfg)
	if err != nil {
		return nil, fmt.Errorf("prepare to send traces: %w", err)
	}
	res, err := newResource(cfg, version)
	if err != nil {
		return nil, fmt.Errorf("say whose the traces are: %w", err)
	}
	t := &Traces{version: version, exporter: &countedExporter{
		SpanExporter: exporter,
		shorten:      shorten,
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
		sdk.WithBatcher(t.exporter, sdk.WithMaxQueueSize(cfg.QueueSize), sdk.WithMaxExportBatchSize(cfg.BatchSize),
			sdk.WithBatchTimeout(time.Duration(cfg.ScheduleDelay)*time.Millisecond)),
	)
	return t, nil
}

// newResource says whose the spans are. What the operator says of it counts first.
func newResource(cfg TracesConfig, version string) (*resource.Resource, error) {
	attributes := []attribute.KeyValue{semconv.ServiceVersion(version)}
	said, _ := pairs(cfg.ResourceAttributes) // valid
	for _, key := range slices.Sorted(maps.Keys(said)) {
		attributes = append(attributes, attribute.String(key, said[key]))
	}
	attributes = append(attributes, semconv.ServiceName(cfg.ServiceName))
	return resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithAttributes(attributes...))
}

func newExporter(cfg TracesConfig) (sdk.SpanExporter, error) {
	ctx := context.Background() // nothing is connected here
	secure, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	if cfg.protocol() == protocolGRPC {
		options := []otlptracegrpc.Option{
			otlptracegrpc.WithEndpointURL(cfg.url()), otlptracegrpc.WithHeaders(cfg.headers()), otlptracegrpc.WithTimeout(cfg.timeout()),
		}
		if secure != nil {
			options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secure)))
		}
		if cfg.Compression == compressionGzip {
			options = append(options, otlptracegrpc.WithCompressor(compressionGzip))
		}
		return otlptrace.New(ctx, otlptracegrpc.NewClient(options...))
	}
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpointURL(cfg.url()), otlptracehttp.WithHeaders(cfg.headers()), otlptracehttp.WithTimeout(cfg.timeout()),
	}
	if secure != nil {
		options = append(options, otlptracehttp.WithTLSClientConfig(secure))
	}
	if cfg.Compression == compressionGzip {
		options = append(options, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return otlptrace.New(ctx, otlptracehttp.NewClient(options...))
}

// maxErrorText is how much of an error of the collector is logged, in bytes.
const maxErrorText = 200

// cleaner returns what makes an error of the exporter fit for the log. Such an error has
// the answer of the collector in it, which can be long, and can hold what it was sent.
func cleaner(secret map[string]string) func(error) error {
	return func(err error) error {
		text, _, _ := strings.Cut(err.Error(), "body: ")
		for _, value := range secret {
			if value != "" {
				text = strings.ReplaceAll(text, value, "***")
			}
		}
		if len(text) > maxErrorText {
			text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
		}
		return errors.New(text)
	}
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
		t.exporter.state.Fail(t.exporter.shorten(err))
	}
}

// countedExporter counts and logs what becomes of the spans.
type countedExporter struct {
	sdk.SpanExporter

	shorten  func(error) error
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
		e.state.Fail(e.shorten(err))
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
