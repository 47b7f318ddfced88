package quota

import (
	"fmt"
	"math"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// Config says how large the buckets are. The two buckets of a caller, for its address
// and for its user, have the same size.
type Config struct {
	// RunBurst is the capacity of a bucket for /run: with 10, a caller can send 10
	// requests at once. It is at least 1.
	RunBurst int64 `env:"RATE_LIMIT_RUN_BURST" envDefault:"10"`
	// RunPerMinute is the number of tokens that such a bucket gains per minute: with 6,
	// one each 10 s. It is at least 1.
	RunPerMinute int64 `env:"RATE_LIMIT_RUN_PER_MINUTE" envDefault:"6"`
	// AssistantBurst is the capacity of a bucket for /assistant; 0 means as much as
	// AssistantPerMinute.
	AssistantBurst int64 `env:"RATE_LIMIT_ASSISTANT_BURST" envDefault:"0"`
	// AssistantPerMinute is the number of tokens that such a bucket gains per minute. It
	// is at least 1.
	AssistantPerMinute int64 `env:"RATE_LIMIT_ASSISTANT_PER_MINUTE" envDefault:"30"`
	// PremiumMultiplier multiplies capacity and rate of the buckets of premium callers:
	// with 3, they have 30 requests at once where others have 10. A number under 1
	// counts as 1.
	PremiumMultiplier float64 `env:"RATE_LIMIT_PREMIUM_MULTIPLIER" envDefault:"3.0"`
	// FallbackShare multiplies capacity and rate of the buckets in this process, which
	// decide while Redis is away. With N replicas, 1/N lets the fleet admit as much as
	// before; 1, the default, up to N times as much.
	FallbackShare float64 `env:"RATE_LIMIT_FALLBACK_SHARE" envDefault:"1"`
}

const (
	maxBurst = 1_000_000
	// maxPerMinute also bounds the rate of premium callers. Buckets are exact to a
	// nanosecond, so at this rate to far less than 0.1 %.
	maxPerMinute  = 1_000_000
	maxMultiplier = 1_000
	// minShare keeps the interval of a scaled limit far below the longest time.Duration.
	minShare = 1e-6
)

// Validate returns every mistake, each beginning with its variable's name.
func (c Config) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("RATE_LIMIT_RUN_BURST", settings.Within(c.RunBurst, 1, maxBurst))
	mistakes.Add("RATE_LIMIT_RUN_PER_MINUTE", settings.Within(c.RunPerMinute, 1, maxPerMinute))
	mistakes.Add("RATE_LIMIT_ASSISTANT_BURST", settings.Within(c.AssistantBurst, 0, maxBurst))
	mistakes.Add("RATE_LIMIT_ASSISTANT_PER_MINUTE", settings.Within(c.AssistantPerMinute, 1, maxPerMinute))
	mistakes.Add("RATE_LIMIT_PREMIUM_MULTIPLIER", c.validMultiplier())
	mistakes.Add("RATE_LIMIT_FALLBACK_SHARE", settings.Within(c.FallbackShare, minShare, 1))
	return mistakes
}

func (c Config) validMultiplier() error {
	switch m := c.PremiumMultiplier; {
	case math.IsNaN(m) || math.IsInf(m, 0) || m > maxMultiplier:
		return fmt.Errorf("%v is not a number of at most %d", m, maxMultiplier)
	case m*float64(max(c.RunPerMinute, c.AssistantPerMinute)) > maxPerMinute:
		return fmt.Errorf("%v times the larger of the rates is above %d per minute", m, maxPerMinute)
	}
	return nil
}

// Run returns the limits of the policy run.
func (c Config) Run() Tiers { return NewTiers(c.RunBurst, c.RunPerMinute, c.PremiumMultiplier) }

// Assistant returns the limits of the policy assistant.
func (c Config) Assistant() Tiers {
	burst := c.AssistantBurst
	if burst == 0 {
		burst = c.AssistantPerMinute
	}
	return NewTiers(burst, c.AssistantPerMinute, c.PremiumMultiplier)
}
