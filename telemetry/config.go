package telemetry

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// Config configures the telemetry port and the log.
type Config struct {
	// Addr is where the port listens: ":9464" or "unix:///run/refrakt/telemetry.sock".
	Addr string `env:"TELEMETRY_ADDR" envDefault:":9464"`
	// MetricsEnabled switches the metrics on. /healthz and /readyz are served in any case.
	MetricsEnabled bool `env:"PROMETHEUS_ENABLED" envDefault:"true"`
	// MetricsRoute is the path of the metrics.
	MetricsRoute string `env:"PROMETHEUS_METRICS_ROUTE" envDefault:"/metrics"`
	// BearerToken is the token that a scrape must send. If it is empty, none is needed.
	BearerToken string `env:"PROMETHEUS_BEARER_TOKEN"`
	// BearerTokenFile is the file that BearerToken was read from. Each scrape reads it
	// again. If it is empty, the token does not change.
	BearerTokenFile string `env:"PROMETHEUS_BEARER_TOKEN_FILE"`
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"INFO"`
	// LogFormat is json or text.
	LogFormat string `env:"LOG_FORMAT" envDefault:"json"`
}

// Validate returns every mistake. Each begins with the name of its variable.
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
