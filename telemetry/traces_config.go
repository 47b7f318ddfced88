package telemetry

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// TracesConfig says where traces go. The variables, and what each value means, are those
// of OpenTelemetry (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables,
// opentelemetry.io/docs/specs/otel/protocol/exporter). With the zero value, no request is
// traced. The exporter and the batches read the others of these variables themselves.
type TracesConfig struct {
	// Disabled switches traces off, whatever the others say.
	Disabled bool `env:"OTEL_SDK_DISABLED" envDefault:"false"`
	// Exporter is otlp or none. If it is empty, an endpoint means otlp.
	Exporter string `env:"OTEL_TRACES_EXPORTER"`
	// Endpoint is the URL of the collector, such as http://collector:4318. TracesEndpoint is
	// the same for traces alone, and counts first.
	Endpoint       string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	TracesEndpoint string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	// Protocol is http/protobuf or grpc. TracesProtocol counts first.
	Protocol       string `env:"OTEL_EXPORTER_OTLP_PROTOCOL" envDefault:"http/protobuf"`
	TracesProtocol string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	// Headers go with each export: key=value,key=value, percent-encoded. TracesHeaders
	// are added, and count first.
	Headers       string `env:"OTEL_EXPORTER_OTLP_HEADERS"`
	TracesHeaders string `env:"OTEL_EXPORTER_OTLP_TRACES_HEADERS"`
	// Sampler chooses the requests to trace, SamplerArg is the share that a ratio takes, from
	// 0 to 1. If it is empty, that is all.
	Sampler    string `env:"OTEL_TRACES_SAMPLER" envDefault:"parentbased_always_on"`
	SamplerArg string `env:"OTEL_TRACES_SAMPLER_ARG"`
	// Propagators are the forms in which a trace's context is read. The gate reads
	// tracecontext alone.
	Propagators []string `env:"OTEL_PROPAGATORS" envDefault:"tracecontext,baggage"`
	// ServiceName is the service that the spans are of.
	ServiceName string `env:"OTEL_SERVICE_NAME" envDefault:"refrakt-gate"`
}

// The values of OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	exporterOTLP = "otlp"
	exporterNone = "none"
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// propagatorTraceContext is the one of OTEL_PROPAGATORS that the gate reads.
const propagatorTraceContext = "tracecontext"

// samplers are the values of OTEL_TRACES_SAMPLER; ratio is OTEL_TRACES_SAMPLER_ARG.
var samplers = map[string]func(ratio float64) trace.Sampler{
	"always_on":                func(float64) trace.Sampler { return trace.AlwaysSample() },
	"always_off":               func(float64) trace.Sampler { return trace.NeverSample() },
	"traceidratio":             trace.TraceIDRatioBased,
	"parentbased_always_on":    func(float64) trace.Sampler { return trace.ParentBased(trace.AlwaysSample()) },
	"parentbased_always_off":   func(float64) trace.Sampler { return trace.ParentBased(trace.NeverSample()) },
	"parentbased_traceidratio": func(ratio float64) trace.Sampler { return trace.ParentBased(trace.TraceIDRatioBased(ratio)) },
}

// Enabled says whether requests are traced.
func (c TracesConfig) Enabled() bool {
	named := c.Exporter == exporterOTLP || c.Exporter == "" && c.endpoint() != ""
	return named && !c.Disabled
}

// Validate returns every mistake. Each begins with the name of its variable.
func (c TracesConfig) Validate() []error {
	var mistakes settings.Mistakes
	if c.Exporter != "" {
		mistakes.Add("OTEL_TRACES_EXPORTER", settings.OneOf(c.Exporter, exporterOTLP, exporterNone))
	}
	mistakes.Add("OTEL_EXPORTER_OTLP_ENDPOINT", validEndpoint(c.Endpoint))
	mistakes.Add("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", validEndpoint(c.TracesEndpoint))
	mistakes.Add("OTEL_EXPORTER_OTLP_PROTOCOL", settings.OneOf(c.Protocol, protocolHTTP, protocolGRPC))
	if c.TracesProtocol != "" {
		mistakes.Add("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", settings.OneOf(c.TracesProtocol, protocolHTTP, protocolGRPC))
	}
	_, err := parseHeaders(c.Headers)
	mistakes.Add("OTEL_EXPORTER_OTLP_HEADERS", err)
	_, err = parseHeaders(c.TracesHeaders)
	mistakes.Add("OTEL_EXPORTER_OTLP_TRACES_HEADERS", err)
	if samplers[c.Sampler] == nil {
		mistakes.Add("OTEL_TRACES_SAMPLER", settings.OneOf(c.Sampler, "parentbased_always_on", "parentbased_always_off",
			"parentbased_traceidratio", "always_on", "always_off", "traceidratio"))
	}
	_, err = c.ratio()
	mistakes.Add("OTEL_TRACES_SAMPLER_ARG", err)
	for _, p := range c.Propagators {
		if p != propagatorTraceContext && p != "baggage" && p != exporterNone {
			mistakes.Add("OTEL_PROPAGATORS", fmt.Errorf("the gate does not read %q, only %s", p, propagatorTraceContext))
		}
	}
	return mistakes
}

// endpoint is where the spans go; empty: to the exporter's default, on this machine.
func (c TracesConfig) endpoint() string {
	if c.TracesEndpoint != "" {
		return c.TracesEndpoint
	}
	return c.Endpoint
}

func (c TracesConfig) protocol() string {
	if c.TracesProtocol != "" {
		return c.TracesProtocol
	}
	return c.Protocol
}

// headers are those of each export.
func (c TracesConfig) headers() (map[string]string, error) {
	return parseHeaders(strings.Join([]string{c.Headers, c.TracesHeaders}, ","))
}

func (c TracesConfig) ratio() (float64, error) {
	if c.SamplerArg == "" {
		return 1, nil
	}
	ratio, err := strconv.ParseFloat(c.SamplerArg, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) { // not a number is neither
		return 0, fmt.Errorf("%q is not a number from 0 to 1", c.SamplerArg)
	}
	return ratio, nil
}

// sampler chooses the requests that are traced. c is valid.
func (c TracesConfig) sampler() trace.Sampler {
	ratio, _ := c.ratio()
	return samplers[c.Sampler](ratio)
}

func validEndpoint(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("it is not a URL like http://collector:4318 (https:// for TLS)")
	}
	if u.User != nil {
		return errors.New("it has a user or a password, which are not sent; OTEL_EXPORTER_OTLP_HEADERS is for that")
	}
	return nil
}

// parseHeaders reads key=value,key=value, with values percent-encoded. Its errors do not
// show the values, which may be secret.
func parseHeaders(s string) (map[string]string, error) {
	headers := make(map[string]string)
	for i, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		key, value, found := strings.Cut(part, "=")
		key = strings.TrimSpace(key)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || key == "" || err != nil || strings.ContainsAny(key, " \t\r\n:") || strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("part %d is not key=value with the value percent-encoded", i+1)
		}
		headers[key] = value
	}
	return headers, nil
}

// Words says in words where traces go.
func (c TracesConfig) Words() string {
	if !c.Enabled() {
		return "no request is traced"
	}
	to := c.endpoint()
	if to == "" {
		to = "this machine"
	}
	words := fmt.Sprintf("traces go to %s by OTLP over %s; sampler %s", to, c.protocol(), c.Sampler)
	if c.SamplerArg != "" {
		words += " " + c.SamplerArg
	}
	return words
}
