package telemetry

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
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
	var mistakes settings.Mistakes
	mistakes.Add("PROMETHEUS_METRICS_ROUTE", validRoute(c.MetricsRoute))
	mistakes.Add("PROMETHEUS_BEARER_TOKEN", validToken(c.BearerToken))
	mistakes.Add("LOG_FORMAT", settings.OneOf(c.LogFormat, logJSON, logText))
	return mistakes
}

func validRoute(route string) error {
	if !strings.HasPrefix(route, "/") || strings.ContainsAny(route, " {}?#") || strings.HasSuffix(route, "/") {
		return fmt.Errorf("%q is not a plain path like /metrics", route)
	}
	if route == healthRoute || route == ReadyRoute {
		return fmt.Errorf("%q is the path of a health check", route)
	}
	return nil
}

const (
	healthRoute = "/healthz"
	// ReadyRoute answers with a [ReadyAnswer].
	ReadyRoute = "/readyz"
)

// The values of LOG_FORMAT.
const (
	logJSON = "json"
	logText = "text"
)
