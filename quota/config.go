package quota

import "github.com/refrakt-hub/refrakt-gate/internal/settings"

// Config says how large the buckets in this process are.
type Config struct {
	// FallbackShare multiplies capacity and rate of the buckets in this process, which
	// decide while Redis is away. With N replicas, 1/N lets the fleet admit as much as
	// before; 1, the default, up to N times as much.
	FallbackShare float64 `env:"RATE_LIMIT_FALLBACK_SHARE" envDefault:"1"`
}

// minShare is far below any number of replicas that there is.
const minShare = 1e-6

// Validate returns every mistake, each beginning with its variable's name.
func (c Config) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("RATE_LIMIT_FALLBACK_SHARE", settings.Within(c.FallbackShare, minShare, 1))
	return mistakes
}
