package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

// defaults are the settings of an environment that names nothing.
func defaults(change func(*TracesConfig)) TracesConfig {
	c := TracesConfig{
		Protocol: protocolHTTP, Sampler: "parentbased_always_on", Propagators: []string{"tracecontext", "baggage"}, ServiceName: "refrakt-gate",
		Timeout: 10_000, Compression: compressionNone, QueueSize: 2048, BatchSize: 512, ScheduleDelay: 5000,
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
		"an endpoint": {
			func(c *TracesConfig) { c.Endpoint = "http://collector:4318" },
			"traces go to http://collector:4318/v1/traces by OTLP over http/protobuf; sampler parentbased_always_on",
		},
		"an endpoint with a path": {
			func(c *TracesConfig) { c.Endpoint = "http://collector/otlp/" },
			"traces go to http://collector/otlp/v1/traces by OTLP over http/protobuf; sampler parentbased_always_on",
		},
		"an endpoint, grpc": {
			func(c *TracesConfig) { c.Endpoint, c.Protocol = "http://collector:4317", protocolGRPC },
			"traces go to http://collector:4317 by OTLP over grpc; sampler parentbased_always_on",
		},
		"of traces alone": {func(c *TracesConfig) {
			c.Endpoint, c.TracesEndpoint, c.TracesProtocol = "http://a:4318", "https://b:4317", protocolGRPC
			c.Sampler, c.SamplerArg = "traceidratio", "0.01"
		}, "traces go to https://b:4317 by OTLP over grpc; sampler traceidratio 0.01"},
		"no endpoint": {
			func(c *TracesConfig) { c.Exporter = "otlp" },
			"traces go to http://localhost:4318/v1/traces by OTLP over http/protobuf; sampler parentbased_always_on",
		},
		"no endpoint, grpc": {
			func(c *TracesConfig) { c.Exporter, c.Protocol = "otlp", protocolGRPC },
			"traces go to http://localhost:4317 by OTLP over grpc; sampler parentbased_always_on",
		},
		"no propagator that is read": {
			func(c *TracesConfig) { c.Endpoint, c.Propagators = "http://collector:4318", []string{"b3", "none"} },
			"traces go to http://collector:4318/v1/traces by OTLP over http/protobuf; sampler parentbased_always_on; OTEL_PROPAGATORS has no tracecontext, so each request begins a trace",
		},
		"an endpoint, no exporter": {func(c *TracesConfig) { c.Endpoint, c.Exporter = "http://collector:4318", "none" }, off},
		"switched off":             {func(c *TracesConfig) { c.Endpoint, c.Disabled = "http://collector:4318", true }, off},
		// They may be meant for other programs, and must not keep the gate from starting.
		"mistakes that do not count": {func(c *TracesConfig) { c.Protocol, c.Sampler, c.QueueSize = "http/json", "jaeger_remote", -1 }, off},
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
	if errs := defaults(func(c *TracesConfig) { c.Exporter = "jaeger" }).Validate(); len(errs) != 1 || errs[0].Error() != `OTEL_TRACES_EXPORTER: "jaeger" is none of otlp, none` {
		t.Errorf("got %v", errs)
	}
	for _, tt := range []struct {
		change func(*TracesConfig)
		want   string
	}{
		{func(c *TracesConfig) { c.Endpoint = "collector:4317" }, endpoint},
		{func(c *TracesConfig) { c.Endpoint = "http:collector" }, endpoint},
		{func(c *TracesConfig) { c.Endpoint = "http://:4318" }, endpoint},
		{func(c *TracesConfig) { c.Endpoint = "http://collector:" }, endpoint},
		{func(c *TracesConfig) { c.Endpoint = "http://collector:99999" }, endpoint},
		{func(c *TracesConfig) { c.Endpoint = "http://collector/v1/traces" }, "OTEL_EXPORTER_OTLP_ENDPOINT: it ends in /v1/traces, which is added"},
		{func(c *TracesConfig) { c.Endpoint = "https://ann:secret@collector" }, "OTEL_EXPORTER_OTLP_ENDPOINT: it has a user, a query"},
		{func(c *TracesConfig) { c.Endpoint = "https://collector?key=secret" }, "OTEL_EXPORTER_OTLP_ENDPOINT: it has a user, a query"},
		{func(c *TracesConfig) { c.TracesEndpoint = "grpc://collector:4317" }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: it is not a URL"},
		{func(c *TracesConfig) { c.Protocol = "http/json" }, `OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is none of http/protobuf, grpc`},
		{func(c *TracesConfig) { c.TracesProtocol = "http" }, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http" is none of http/protobuf, grpc`},
		{func(c *TracesConfig) { c.Sampler = "always" }, `OTEL_TRACES_SAMPLER: "always" is none of parentbased_always_on`},
		{func(c *TracesConfig) { c.SamplerArg = "0.5" }, "OTEL_TRACES_SAMPLER_ARG: OTEL_TRACES_SAMPLER=parentbased_always_on takes none"},
		{func(c *TracesConfig) { c.Sampler, c.SamplerArg = "traceidratio", "10%" }, `OTEL_TRACES_SAMPLER_ARG: "10%" is not a number from 0 to 1`},
		{func(c *TracesConfig) { c.Sampler, c.SamplerArg = "traceidratio", "10" }, `OTEL_TRACES_SAMPLER_ARG: "10" is not a number from 0 to 1`},
		{func(c *TracesConfig) { c.Sampler, c.SamplerArg = "traceidratio", "NaN" }, `OTEL_TRACES_SAMPLER_ARG: "NaN" is not a number from 0 to 1`},
		{func(c *TracesConfig) { c.Headers = "a=1,secret" }, "OTEL_EXPORTER_OTLP_HEADERS: part 2 is not key=value with the value percent-encoded"},
		{func(c *TracesConfig) { c.TracesHeaders = "authorization: Bearer=secret" }, "OTEL_EXPORTER_OTLP_TRACES_HEADERS: part 1 is not key=value"},
		{func(c *TracesConfig) { c.Headers = "a=%zsecret" }, "OTEL_EXPORTER_OTLP_HEADERS: part 1 is not key=value"},
		{func(c *TracesConfig) { c.Headers = "a=secret%0d%0ab: 1" }, "OTEL_EXPORTER_OTLP_HEADERS: part 1 is not key=value"},
		{func(c *TracesConfig) { c.ResourceAttributes = "foo" }, "OTEL_RESOURCE_ATTRIBUTES: part 1 is not key=value"},
		{func(c *TracesConfig) { c.Timeout = 0 }, "OTEL_EXPORTER_OTLP_TIMEOUT: 0 is not between 1 and 60000"},
		{func(c *TracesConfig) { c.Compression = "zstd" }, `OTEL_EXPORTER_OTLP_COMPRESSION: "zstd" is none of none, gzip`},
		{func(c *TracesConfig) { c.Certificate = "/nonexistent" }, "OTEL_EXPORTER_OTLP_CERTIFICATE, …_CLIENT_CERTIFICATE, …_CLIENT_KEY: open /nonexistent"},
		{func(c *TracesConfig) { c.Certificate = "traces.go" }, "OTEL_EXPORTER_OTLP_CERTIFICATE, …_CLIENT_CERTIFICATE, …_CLIENT_KEY: traces.go has no certificate in PEM"},
		{func(c *TracesConfig) { c.ClientKey = "traces.go" }, "OTEL_EXPORTER_OTLP_CERTIFICATE, …_CLIENT_CERTIFICATE, …_CLIENT_KEY: the client's certificate and key: open"},
		{func(c *TracesConfig) { c.QueueSize = 99_999_999_999 }, "OTEL_BSP_MAX_QUEUE_SIZE: 99999999999 is not between 1 and 1000000"},
		{func(c *TracesConfig) { c.BatchSize = 2049 }, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: 2049 is not between 1 and 2048"},
		{func(c *TracesConfig) { c.ScheduleDelay = -5 }, "OTEL_BSP_SCHEDULE_DELAY: -5 is not between 1 and 600000"},
	} {
		errs := defaults(func(c *TracesConfig) {
			c.Exporter = exporterOTLP
			tt.change(c)
		}).Validate()
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

// collector is what takes spans over HTTP, as a test wants it.
type collector struct {
	*httptest.Server

	status  int    // of the answers; 0: 200
	body    string // of the answers
	headers http.Header
	hangs   chan struct{} // if it is not nil, answers wait for its end
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.hangs != nil {
			<-c.hangs
		}
		c.headers = r.Header
		if c.status != 0 {
			w.WriteHeader(c.status)
		}
		_, _ = io.WriteString(w, c.body)
	}))
	t.Cleanup(c.Close)
	return c
}

// send ends so many spans and exports them.
func send(t *testing.T, traces *Traces, spans int) {
	t.Helper()
	for range spans {
		_, span := traces.Tracer().Start(t.Context(), "request")
		span.End()
	}
	if err := traces.provider.ForceFlush(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTracesLost: what the collector does not take is counted, logged once and told, and so
// is that it takes traces again. Headers go along, and the log never shows them, nor much
// of what the collector says.
func TestTracesLost(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	var log strings.Builder
	reg := prometheus.NewRegistry()
	cfg := defaults(func(cfg *TracesConfig) {
		cfg.Endpoint, cfg.Headers, cfg.TracesHeaders = c.URL, "authorization=Bearer%20secret", "x-tenant=gates"
	})
	traces, err := NewTraces(cfg, "v1", reg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
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
	send(t, traces, 2)
	wants(false, 2, 2)
	if token, tenant := c.headers.Get("Authorization"), c.headers.Get("X-Tenant"); token != "Bearer secret" || tenant != "gates" {
		t.Errorf("the collector got the token %q and the tenant %q", token, tenant)
	}
	c.status, c.body = http.StatusForbidden, "you sent Authorization: Bearer secret"+strings.Repeat(" and more", 100_000)
	send(t, traces, 1)
	send(t, traces, 1)
	wants(true, 4, 2)
	if n := strings.Count(log.String(), "traces are lost"); n != 1 || !strings.Contains(log.String(), "403") {
		t.Errorf("%d lines say that traces are lost, want 1:\n%s", n, log.String())
	}
	c.status, c.body = 0, ""
	send(t, traces, 3)
	wants(false, 7, 5)
	if text := log.String(); !strings.Contains(text, "takes traces again") || strings.Contains(text, "secret") || len(text) > 2000 {
		t.Errorf("the log has %d bytes:\n%.3000s", len(text), text)
	}

	_, span := traces.Tracer().Start(t.Context(), "last")
	span.End()
	stopped, cancel := context.WithCancel(t.Context())
	cancel() // as when the process was told to stop
	traces.Stop(stopped)
	wants(false, 8, 6)
}

// TestStopDoesNotWaitForCollector: a collector that hangs does not hold up the end of the gate.
func TestStopDoesNotWaitForCollector(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	c.hangs = make(chan struct{})
	defer close(c.hangs)
	cfg := defaults(func(cfg *TracesConfig) { cfg.Endpoint, cfg.Timeout = c.URL, 60_000 })
	traces, err := NewTraces(cfg, "v1", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, span := traces.Tracer().Start(t.Context(), "last")
	span.End()
	start := time.Now()
	traces.Stop(t.Context())
	if took := time.Since(start); took > flushTimeout+10*time.Second || !traces.Lost() && took < flushTimeout {
		t.Errorf("it took %v", took)
	}
	if flushTimeout > 2*time.Second {
		t.Errorf("it may take %v: the grace period of pods has room for 2 s", flushTimeout)
	}
}

// TestCleaner: an error for the log has no secret, and is short.
func TestCleaner(t *testing.T) {
	t.Parallel()
	shorten := cleaner(map[string]string{"authorization": "Bearer secret", "empty": ""})
	for text, want := range map[string]string{
		"rpc error: code = Internal desc = got Bearer secret": "rpc error: code = Internal desc = got ***",
		"403 (body: anything)":                                "403 (",
		strings.Repeat("x", 199) + "ü":                        strings.Repeat("x", 199) + "…",
		"short":                                               "short",
	} {
		if got := shorten(errors.New(text)).Error(); got != want {
			t.Errorf("%.60s: got %q, want %q", text, got, want)
		}
	}
}
