package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

// defaults are the settings of an environment that names nothing.
func defaults(change func(*TracesConfig)) TracesConfig {
	c := TracesConfig{
		Protocol: protocolHTTP, Sampler: "parentbased_always_on", Propagators: []string{"tracecontext", "baggage"}, ServiceName: "refrakt-gate",
	}
	change(&c)
	return c
}

func TestTracesWords(t *testing.T) {
	t.Parallel()
	const off = "no request is traced"
	for name, tt := range map[string]struct {
		change func(*TracesConfig)
		want   string
	}{
		"by default": {func(*TracesConfig) {}, off},
		"an endpoint": {func(c *TracesConfig) { c.Endpoint = "http://collector:4318" },
			"traces go to http://collector:4318 by OTLP over http/protobuf; sampler parentbased_always_on"},
		"of traces alone": {func(c *TracesConfig) {
			c.Endpoint, c.TracesEndpoint, c.TracesProtocol = "http://a:4318", "https://b:4317", protocolGRPC
			c.Sampler, c.SamplerArg = "traceidratio", "0.01"
		}, "traces go to https://b:4317 by OTLP over grpc; sampler traceidratio 0.01"},
		"no endpoint":              {func(c *TracesConfig) { c.Exporter = "otlp" }, "traces go to this machine by OTLP over http/protobuf; sampler parentbased_always_on"},
		"an endpoint, no exporter": {func(c *TracesConfig) { c.Endpoint, c.Exporter = "http://collector:4318", "none" }, off},
		"switched off":             {func(c *TracesConfig) { c.Endpoint, c.Disabled = "http://collector:4318", true }, off},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := defaults(tt.change)
			if errs := c.Validate(); len(errs) > 0 {
				t.Errorf("mistakes: %v", errs)
			}
			if got := c.Words(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTracesMistakes(t *testing.T) {
	t.Parallel()
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT: it is not a URL like http://collector:4318 (https:// for TLS)"
	for _, tt := range []struct {
		change func(*TracesConfig)
		want   string
	}{
		{func(c *TracesConfig) { c.Exporter = "jaeger" }, `OTEL_TRACES_EXPORTER: "jaeger" is none of otlp, none`},
		{func(c *TracesConfig) { c.Endpoint = "collector:4317" }, endpoint},
		{func(c *TracesConfig) { c.Endpoint = "http:collector" }, endpoint},
		{func(c *TracesConfig) { c.TracesEndpoint = "grpc://collector:4317" }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: it is not a URL"},
		{func(c *TracesConfig) { c.Endpoint = "https://ann:secret@collector" }, "OTEL_EXPORTER_OTLP_ENDPOINT: it has a user or a password, which are not sent"},
		{func(c *TracesConfig) { c.Protocol = "http/json" }, `OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is none of http/protobuf, grpc`},
		{func(c *TracesConfig) { c.TracesProtocol = "http" }, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http" is none of http/protobuf, grpc`},
		{func(c *TracesConfig) { c.Sampler = "always" }, `OTEL_TRACES_SAMPLER: "always" is none of parentbased_always_on`},
		{func(c *TracesConfig) { c.SamplerArg = "10%" }, `OTEL_TRACES_SAMPLER_ARG: "10%" is not a number from 0 to 1`},
		{func(c *TracesConfig) { c.SamplerArg = "10" }, `OTEL_TRACES_SAMPLER_ARG: "10" is not a number from 0 to 1`},
		{func(c *TracesConfig) { c.SamplerArg = "NaN" }, `OTEL_TRACES_SAMPLER_ARG: "NaN" is not a number from 0 to 1`},
		{func(c *TracesConfig) { c.Propagators = []string{"b3"} }, `OTEL_PROPAGATORS: the gate does not read "b3", only tracecontext`},
		{func(c *TracesConfig) { c.Headers = "a=1,secret" }, "OTEL_EXPORTER_OTLP_HEADERS: part 2 is not key=value with the value percent-encoded"},
		{func(c *TracesConfig) { c.TracesHeaders = "authorization: Bearer=secret" }, "OTEL_EXPORTER_OTLP_TRACES_HEADERS: part 1 is not key=value"},
		{func(c *TracesConfig) { c.Headers = "a=%zsecret" }, "OTEL_EXPORTER_OTLP_HEADERS: part 1 is not key=value"},
		{func(c *TracesConfig) { c.Headers = "a=secret%0d%0ab: 1" }, "OTEL_EXPORTER_OTLP_HEADERS: part 1 is not key=value"},
	} {
		errs := defaults(tt.change).Validate()
		if text := fmt.Sprint(errs); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), tt.want) || strings.Contains(text, "secret") {
			t.Errorf("got %v, want %s", errs, tt.want)
		}
	}
}

// TestSamplers: each sampler that has a name makes the sampler that the specification says.
func TestSamplers(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]trace.Sampler{
		"always_on":                trace.AlwaysSample(),
		"always_off":               trace.NeverSample(),
		"traceidratio":             trace.TraceIDRatioBased(0.25),
		"parentbased_always_on":    trace.ParentBased(trace.AlwaysSample()),
		"parentbased_always_off":   trace.ParentBased(trace.NeverSample()),
		"parentbased_traceidratio": trace.ParentBased(trace.TraceIDRatioBased(0.25)),
	} {
		got := defaults(func(c *TracesConfig) { c.Sampler, c.SamplerArg = name, "0.25" }).sampler()
		if got.Description() != want.Description() {
			t.Errorf("%s: got %s, want %s", name, got.Description(), want.Description())
		}
	}
	if len(samplers) != 6 {
		t.Errorf("%d samplers have a name", len(samplers))
	}
}

// TestTracesLost: what the collector does not take is counted, logged once and told, and so
// is that it takes traces again. Headers go along, and the log never shows them.
func TestTracesLost(t *testing.T) {
	var refuses bool
	var token string
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("Authorization")
		if refuses {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(collector.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)

	var log strings.Builder
	reg := prometheus.NewRegistry()
	cfg := defaults(func(c *TracesConfig) { c.Endpoint, c.Headers = collector.URL, "authorization=Bearer%20secret" })
	traces, err := NewTraces(cfg, "v1", reg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	send := func(spans int) {
		for range spans {
			_, span := traces.Tracer().Start(t.Context(), "request")
			span.End()
		}
		if err := traces.provider.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wants := func(lost bool, ended, exported float64) {
		t.Helper()
		if traces.Lost() != lost {
			t.Errorf("lost: %v, want %v", traces.Lost(), lost)
		}
		for name, want := range map[string]float64{"refrakt_gate_spans_ended_total": ended, "refrakt_gate_spans_exported_total": exported} {
			if got := metrictest.Value(t, reg, name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
	}
	send(2)
	wants(false, 2, 2)
	if token != "Bearer secret" {
		t.Errorf("the collector got the token %q", token)
	}
	refuses = true
	send(1)
	send(1)
	wants(true, 4, 2)
	if n := strings.Count(log.String(), "traces are lost"); n != 1 {
		t.Errorf("%d lines say that traces are lost, want 1:\n%s", n, log.String())
	}
	refuses = false
	send(3)
	wants(false, 7, 5)
	if !strings.Contains(log.String(), "takes traces again") || strings.Contains(log.String(), "secret") {
		t.Errorf("the log:\n%s", log.String())
	}

	_, span := traces.Tracer().Start(t.Context(), "last")
	span.End()
	stopped, cancel := context.WithCancel(t.Context())
	cancel() // as when the process was told to stop
	traces.Stop(stopped)
	wants(false, 8, 6)
}
