package telemetry

import (
	"fmt"
	"log/slog"
	"strings"
)

// Config says where and how the process tells about itself.
type Config struct {
	Addr           string `env:"TELEMETRY_ADDR" envDefault:":9464"`
	MetricsEnabled bool   `env:"PROMETHEUS_ENABLED" envDefault:"true"`
	MetricsRoute   string `env:"PROMETHEUS_METRICS_ROUTE" envDefault:"/metrics"`
	// BearerToken guards the metrics; empty: anybody may read them.
	BearerToken string `env:"PROMETHEUS_BEARER_TOKEN"`
	// BearerTokenFile is where BearerToken was read from, and is read again; empty: it does not change.
	BearerTokenFile string     `env:"PROMETHEUS_BEARER_TOKEN_FILE"`
	LogLevel        slog.Level `env:"LOG_LEVEL" envDefault:"INFO"`
	LogFormat       string     `env:"LOG_FORMAT" envDefault:"json"`
}

// Validate returns every mistake, each beginning with its variable's name.
func (c Config) Validate() []error {
	var errs []error
	if err := validRoute(c.MetricsRoute); err != nil {
		errs = append(errs, fmt.Errorf("PROMETHEUS_METRICS_ROUTE: %q %w", c.MetricsRoute, err))
	}
	if err := validToken(c.BearerToken); err != nil {
		errs = append(errs, fmt.Errorf("PROMETHEUS_BEARER_TOKEN: %w", err))
	}
	if c.LogFormat != "json" && c.LogFormat != "text" {
		errs = append(errs, fmt.Errorf("LOG_FORMAT: %q is none of json, text", c.LogFormat))
	}
	return errs
}

func validRoute(route string) (err error) {
	if !strings.HasPrefix(route, "/") || strings.ContainsAny(route, " {}?#") || strings.HasSuffix(route, "/") {
		return fmt.Errorf("is not a plain path like /metrics")
	}
	if route == healthRoute || route == readyRoute {
		return fmt.Errorf("is taken by health")
	}
	return nil
}

const (
	healthRoute = "/healthz"
	readyRoute  = "/readyz"
)
