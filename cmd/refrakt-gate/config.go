package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/settings"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
	"github.com/refrakt-hub/refrakt-gate/telemetry"
)

// Config has all settings. Each package has its own part.
type Config struct {
	// GRPCAddr is where Envoy asks: host:port, or unix:///path.
	GRPCAddr string `env:"GRPC_ADDR" envDefault:":9001"`
	// GRPCCodec is how a Check is read and written: wire or, if that is at fault, standard.
	GRPCCodec codec `env:"GRPC_CODEC" envDefault:"wire"`
	// QueueURL is the Redis of the queue, such as redis://redis:6379/0. If it is empty,
	// there is no queue.
	QueueURL string `env:"QUEUE_URL"`
	// LimitRedisURL is the Redis of the buckets. If it is empty, they are in the Redis of
	// QueueURL, or in memory if that is empty too.
	LimitRedisURL string `env:"RATE_LIMIT_REDIS_URL"`
	// PolicyFile is a file of policies. If it is empty, the environment has what there is.
	PolicyFile string `env:"POLICY_FILE"`
	// SwitchesFile is a file that changes the switches while the gate runs. If it is empty,
	// there is none.
	SwitchesFile string `env:"SWITCHES_FILE"`
	// StartupTimeout is how long the gate waits for Redis when it starts.
	StartupTimeout time.Duration `env:"STARTUP_TIMEOUT" envDefault:"30s"`
	// ShutdownDrain is how long the gate answers requests after it was told to stop. Its
	// health checks fail in that time.
	ShutdownDrain time.Duration `env:"SHUTDOWN_DRAIN" envDefault:"2s"`
	// ShutdownTimeout is how long the requests under way may take after that.
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"10s"`

	TLS       TLSConfig
	Authz     authz.Config
	Policy    policy.Environment
	Quota     quota.Config
	Queue     backpressure.Config
	Jobs      jobmetrics.Config
	Telemetry telemetry.Config
	Traces    telemetry.TracesConfig

	policies *policy.File // what POLICY_FILE says, or what the environment amounts to
}

// secrets are the settings that are never shown whole, and how each is masked. Each can
// also be in a file, whose path is the value of NAME_FILE.
var secrets = map[string]func(string) string{
	"QUEUE_URL":               maskURL,
	"RATE_LIMIT_REDIS_URL":    maskURL,
	"PROMETHEUS_BEARER_TOKEN": hide,

	"OTEL_EXPORTER_OTLP_HEADERS":        hide,
	"OTEL_EXPORTER_OTLP_TRACES_HEADERS": hide,
}

func hide(string) string { return "***" }

// loadConfig reads the settings from an environment. It also returns every mistake in
// them. Each mistake begins with the name of its variable.
func loadConfig(environ map[string]string) (Config, []error) {
	environ, errs := readSecretFiles(environ)
	environ, more := readSwitches(environ)
	errs = slices.Concat(errs, more, replacedButSet(environ))
	var cfg Config
	opts := env.Options{Environment: environ, FuncMap: map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[time.Duration](): parseDuration,
		reflect.TypeFor[bool]():          parseBool,
	}}
	if err := env.ParseWithOptions(&cfg, opts); err != nil {
		return cfg, append(errs, parseErrors(opts)...)
	}
	// An empty variable means the default, except for this one, where empty means none.
	if v, ok := environ["CLIENT_IP_HEADER"]; ok && v == "" {
		cfg.Authz.ClientIPHeader = ""
	}
	return cfg, append(errs, cfg.complete()...)
}

// complete reads the policies. It returns every mistake in them and in the settings.
func (c *Config) complete() (mistakes []error) {
	mistakes = c.Validate()
	var more []error
	c.policies, more = c.readPolicies()
	return append(mistakes, more...)
}

// parseErrors returns a mistake for each variable that can't be parsed. The errors of the
// library name the field only, so each variable is parsed alone. The other variables are
// then checked without it, so that all mistakes come at once.
func parseErrors(opts env.Options) (errs []error) {
	params, err := env.GetFieldParamsWithOptions(new(Config), opts)
	if err != nil {
		return []error{err}
	}
	good := make(map[string]string)
	for _, p := range params {
		value, set := opts.Environment[p.Key]
		if !set {
			continue
		}
		alone := opts
		alone.Environment = map[string]string{p.Key: value}
		if err := env.ParseWithOptions(new(Config), alone); err != nil {
			if pe, ok := errors.AsType[env.ParseError](err); ok {
				err = pe.Err
			}
			if _, ok := errors.AsType[*strconv.NumError](err); ok {
				err = fmt.Errorf("%q is not a number it can take", value)
			}
			errs = append(errs, fmt.Errorf("%s: %w", p.Key, err))
			continue
		}
		good[p.Key] = value
	}
	opts.Environment = good
	var rest Config
	if err := env.ParseWithOptions(&rest, opts); err != nil {
		return append(errs, err)
	}
	return append(errs, rest.complete()...)
}

// Validate returns every mistake. Each begins with the name of its variable.
func (c Config) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("GRPC_ADDR", validListenAddr(c.GRPCAddr))
	mistakes.Add("GRPC_CODEC", settings.OneOf(c.GRPCCodec, codecWire, codecStandard))
	mistakes.Add("TELEMETRY_ADDR", validListenAddr(c.Telemetry.Addr))
	mistakes.Add("QUEUE_URL", validQueueURL(c.QueueURL))
	mistakes.Add("RATE_LIMIT_REDIS_URL", validRedisURL(c.LimitRedisURL))
	mistakes.Add("STARTUP_TIMEOUT", settings.Within(c.StartupTimeout, time.Second, time.Hour))
	mistakes.Add("SHUTDOWN_DRAIN", settings.Within(c.ShutdownDrain, 0, time.Hour))
	mistakes.Add("SHUTDOWN_TIMEOUT", settings.Within(c.ShutdownTimeout, time.Millisecond, time.Hour))
	return slices.Concat(mistakes, c.TLS.Validate(), c.Authz.Validate(), c.Policy.Validate(), c.Quota.Validate(), c.Queue.Validate(), c.Jobs.Validate(), c.Telemetry.Validate(), c.Traces.Validate())
}

// limiterURL is the Redis of the buckets. If it is empty, they are in memory.
func (c Config) limiterURL() string {
	if c.LimitRedisURL != "" {
		return c.LimitRedisURL
	}
	return c.QueueURL
}

// readSecretFiles puts the content of each NAME_FILE in the place of NAME.
func readSecretFiles(environ map[string]string) (map[string]string, []error) {
	var mistakes settings.Mistakes
	out := maps.Clone(environ)
	for name := range secrets {
		path := environ[name+"_FILE"]
		switch {
		case path == "":
		case environ[name] != "":
			mistakes.Add(name+"_FILE", fmt.Errorf("%s is set too; which one counts?", name))
		default:
			content, err := os.ReadFile(path) //nolint:gosec // the operator names the file
			value := strings.TrimSpace(string(content))
			switch {
			case err != nil:
				mistakes.Add(name+"_FILE", err)
			case value == "": // it would mean that there is no such setting
				mistakes.Add(name+"_FILE", fmt.Errorf("%s is empty", path))
			}
			out[name] = value
		}
	}
	return out, mistakes
}

// parseDuration reads a Go duration or, as the Python service did, plain seconds.
func parseDuration(s string) (any, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(f) > math.MaxInt32 || math.IsNaN(f) {
		return nil, fmt.Errorf("%q is neither seconds (2.5) nor a duration (2500ms)", s)
	}
	return time.Duration(f * float64(time.Second)), nil
}

// parseBool reads what the Python service took for true, and the opposites.
func parseBool(s string) (any, error) {
	switch strings.ToLower(s) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	default:
		return nil, fmt.Errorf("%q is none of 1, true, yes, on, 0, false, no, off", s)
	}
}

// validListenAddr accepts host:port, where either part may be empty, and unix:///path.
func validListenAddr(s string) error {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf("%q: the path of the socket is not absolute", s)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is neither host:port nor unix:///path", s)
	}
	return nil
}

func maskURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		return "***"
	}
	if u.User != nil {
		u.User = url.UserPassword("***", "***")
	}
	// The query can hold a password too, and nothing in it is worth showing.
	if u.RawQuery != "" {
		u.RawQuery = "***"
	}
	return strings.ReplaceAll(u.String(), "%2A", "*")
}
