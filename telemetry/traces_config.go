package telemetry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// TracesConfig says where traces go. The variables, and what each value means, are those
// of OpenTelemetry (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables,
// opentelemetry.io/docs/specs/otel/protocol/exporter). With the zero value, no request is
// traced.
type TracesConfig struct {
	// Disabled switches traces off, whatever the others say.
	Disabled bool `env:"OTEL_SDK_DISABLED" envDefault:"false"`
	// Exporter is otlp or none. If it is empty, an endpoint means otlp.
	Exporter string `env:"OTEL_TRACES_EXPORTER"`
	// Endpoint is the URL of the collector, such as http://collector:4318. TracesEndpoint is
	// the same for traces alone, with its path, and counts first.
	Endpoint       string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	TracesEndpoint string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	// Protocol is http/protobuf or grpc. TracesProtocol counts first.
	Protocol       string `env:"OTEL_EXPORTER_OTLP_PROTOCOL" envDefault:"http/protobuf"`
	TracesProtocol string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	// Headers go with each export: key=value,key=value, percent-encoded. TracesHeaders
	// are added, and count first.
	Headers       string `env:"OTEL_EXPORTER_OTLP_HEADERS"`
	TracesHeaders string `env:"OTEL_EXPORTER_OTLP_TRACES_HEADERS"`
	// Timeout is how long an export may take, in milliseconds.
	Timeout int `env:"OTEL_EXPORTER_OTLP_TIMEOUT" envDefault:"10000"`
	// Compression of an export is none or gzip.
	Compression string `env:"OTEL_EXPORTER_OTLP_COMPRESSION" envDefault:"none"`
	// Certificate is a PEM file with the CAs of the collector; empty: the system's.
	// ClientCertificate and ClientKey are PEM files with what the gate shows the collector.
	Certificate       string `env:"OTEL_EXPORTER_OTLP_CERTIFICATE"`
	ClientCertificate string `env:"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"`
	ClientKey         string `env:"OTEL_EXPORTER_OTLP_CLIENT_KEY"`
	// Sampler chooses the requests to trace, SamplerArg is the share that a ratio takes, from
	// 0 to 1. If it is empty, that is all.
	Sampler    string `env:"OTEL_TRACES_SAMPLER" envDefault:"parentbased_always_on"`
	SamplerArg string `env:"OTEL_TRACES_SAMPLER_ARG"`
	// Propagators are the forms in which a request says to which trace it belongs. The gate
	// reads tracecontext, if it is among them.
	Propagators []string `env:"OTEL_PROPAGATORS" envDefault:"tracecontext,baggage"`
	// ServiceName is the service that the spans are of, ResourceAttributes what else is said
	// of it: key=value,key=value, percent-encoded.
	ServiceName        string `env:"OTEL_SERVICE_NAME" envDefault:"refrakt-gate"`
	ResourceAttributes string `env:"OTEL_RESOURCE_ATTRIBUTES"`
	// QueueSize is how many spans can wait for their export, BatchSize how many are exported
	// together. ScheduleDelay is how long a span waits at most, in milliseconds.
	QueueSize     int `env:"OTEL_BSP_MAX_QUEUE_SIZE" envDefault:"2048"`
	BatchSize     int `env:"OTEL_BSP_MAX_EXPORT_BATCH_SIZE" envDefault:"512"`
	ScheduleDelay int `env:"OTEL_BSP_SCHEDULE_DELAY" envDefault:"5000"`
}

const (
	exporterOTLP = "otlp"
	exporterNone = "none"
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"

	compressionNone = "none"
	compressionGzip = "gzip"

	// propagatorTraceContext is the one that the gate reads.
	propagatorTraceContext = "tracecontext"
	// tracesPath is what a collector takes traces at, over HTTP.
	tracesPath = "/v1/traces"
)

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
	named := c.Exporter == exporterOTLP || c.Exporter == "" && c.Endpoint+c.TracesEndpoint != ""
	return named && !c.Disabled
}

// Parents says whether a request says to which trace it belongs.
func (c TracesConfig) Parents() bool { return slices.Contains(c.Propagators, propagatorTraceContext) }

// Validate returns every mistake. Each begins with the name of its variable. While no
// request is traced, it does not look at what would be said about traces: the variables
// may be meant for other programs.
func (c TracesConfig) Validate() []error {
	var mistakes settings.Mistakes
	if c.Exporter != "" {
		mistakes.Add("OTEL_TRACES_EXPORTER", settings.OneOf(c.Exporter, exporterOTLP, exporterNone))
	}
	if !c.Enabled() {
		return mistakes
	}
	if c.TracesEndpoint == "" {
		mistakes.Add("OTEL_EXPORTER_OTLP_ENDPOINT", validEndpoint(c.Endpoint))
		if strings.HasSuffix(strings.TrimSuffix(c.Endpoint, "/"), tracesPath) {
			mistakes.Add("OTEL_EXPORTER_OTLP_ENDPOINT", fmt.Errorf("it ends in %s, which is added to it; OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used as it is", tracesPath))
		}
	}
	mistakes.Add("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", validEndpoint(c.TracesEndpoint))
	protocol := "OTEL_EXPORTER_OTLP_PROTOCOL"
	if c.TracesProtocol != "" {
		protocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	}
	mistakes.Add(protocol, settings.OneOf(c.protocol(), protocolHTTP, protocolGRPC))
	_, err := pairs(c.Headers)
	mistakes.Add("OTEL_EXPORTER_OTLP_HEADERS", err)
	_, err = pairs(c.TracesHeaders)
	mistakes.Add("OTEL_EXPORTER_OTLP_TRACES_HEADERS", err)
	mistakes.Add("OTEL_EXPORTER_OTLP_TIMEOUT", settings.Within(c.Timeout, 1, 60_000))
	mistakes.Add("OTEL_EXPORTER_OTLP_COMPRESSION", settings.OneOf(c.Compression, compressionNone, compressionGzip))
	_, err = c.tls()
	mistakes.Add("OTEL_EXPORTER_OTLP_CERTIFICATE, …_CLIENT_CERTIFICATE, …_CLIENT_KEY", err)
	if samplers[c.Sampler] == nil {
		mistakes.Add("OTEL_TRACES_SAMPLER", settings.OneOf(c.Sampler, "parentbased_always_on", "parentbased_always_off",
			"parentbased_traceidratio", "always_on", "always_off", "traceidratio"))
	}
	_, err = c.ratio()
	mistakes.Add("OTEL_TRACES_SAMPLER_ARG", err)
	_, err = pairs(c.ResourceAttributes)
	mistakes.Add("OTEL_RESOURCE_ATTRIBUTES", err)
	mistakes.Add("OTEL_BSP_MAX_QUEUE_SIZE", settings.Within(c.QueueSize, 1, 1_000_000))
	mistakes.Add("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", settings.Within(c.BatchSize, 1, max(1, c.QueueSize)))
	mistakes.Add("OTEL_BSP_SCHEDULE_DELAY", settings.Within(c.ScheduleDelay, 1, 600_000))
	return mistakes
}

// url is where the spans go.
func (c TracesConfig) url() string {
	grpc := c.protocol() == protocolGRPC
	switch {
	case c.TracesEndpoint != "":
		return c.TracesEndpoint
	case c.Endpoint != "" && grpc:
		return c.Endpoint
	case c.Endpoint != "":
		return strings.TrimSuffix(c.Endpoint, "/") + tracesPath
	case grpc:
		return "http://localhost:4317"
	default:
		return "http://localhost:4318" + tracesPath
	}
}

func (c TracesConfig) protocol() string {
	if c.TracesProtocol != "" {
		return c.TracesProtocol
	}
	return c.Protocol
}

// headers are those of each export. c is valid.
func (c TracesConfig) headers() map[string]string {
	headers, _ := pairs(c.Headers + "," + c.TracesHeaders)
	return headers
}

// timeout is how long an export may take.
func (c TracesConfig) timeout() time.Duration { return time.Duration(c.Timeout) * time.Millisecond }

// tls is what the gate needs to speak TLS with the collector; nil if there is nothing that
// the system does not have.
func (c TracesConfig) tls() (*tls.Config, error) {
	if c.Certificate+c.ClientCertificate+c.ClientKey == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Certificate != "" {
		text, err := os.ReadFile(c.Certificate)
		if err != nil {
			return nil, err
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM", c.Certificate)
		}
	}
	if c.ClientCertificate+c.ClientKey != "" {
		pair, err := tls.LoadX509KeyPair(c.ClientCertificate, c.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("the client's certificate and key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (c TracesConfig) ratio() (float64, error) {
	if c.SamplerArg == "" {
		return 1, nil
	}
	if !strings.HasSuffix(c.Sampler, "traceidratio") {
		return 0, fmt.Errorf("OTEL_TRACES_SAMPLER=%s takes none; the ratio is for traceidratio and parentbased_traceidratio", c.Sampler)
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

// validEndpoint accepts a URL without anything secret, so that it can be shown.
func validEndpoint(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err == nil && u.Port() != "" {
		_, err = strconv.ParseUint(u.Port(), 10, 16)
	}
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return errors.New("it is not a URL like http://collector:4318 (https:// for TLS)")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("it has a user, a query or a fragment; OTEL_EXPORTER_OTLP_HEADERS is for tokens")
	}
	return nil
}

// pairs reads key=value,key=value, with values percent-encoded. Its errors do not show the
// values, which may be secret.
func pairs(s string) (map[string]string, error) {
	all := make(map[string]string)
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
		all[key] = value
	}
	return all, nil
}

// Words says in words where traces go.
func (c TracesConfig) Words() string {
	if !c.Enabled() {
		return "no request is traced"
	}
	words := fmt.Sprintf("traces go to %s by OTLP over %s; sampler %s", c.url(), c.protocol(), c.Sampler)
	if c.SamplerArg != "" {
		words += " " + c.SamplerArg
	}
	if !c.Parents() {
		words += "; OTEL_PROPAGATORS has no tracecontext, so each request begins a trace"
	}
	return words
}
