package quota

import (
	"fmt"
	"math"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// Config says how large the buckets are. Both of a caller's buckets (IP and
// user) have the same size.
type Config struct {
	RunBurst     int64 `env:"RATE_LIMIT_RUN_BURST" envDefault:"10"`
	RunPerMinute int64 `env:"RATE_LIMIT_RUN_PER_MINUTE" envDefault:"6"`
	// AssistantBurst 0 means AssistantPerMinute.
	AssistantBurst     int64 `env:"RATE_LIMIT_ASSISTANT_BURST" envDefault:"0"`
	AssistantPerMinute int64 `env:"RATE_LIMIT_ASSISTANT_PER_MINUTE" envDefault:"30"`
	// PremiumMultiplier multiplies capacity and refill of premium callers; under
	// 1 counts as 1.
	PremiumMultiplier float64 `env:"RATE_LIMIT_PREMIUM_MULTIPLIER" envDefault:"3.0"`
	// FallbackShare is the part of capacity and rate that a replica's own buckets
	// have while Redis is away.
	FallbackShare float64 `env:"RATE_LIMIT_FALLBACK_SHARE" envDefault:"1"`
}

const (
	maxBurst = 1_000_000
	// maxPerMinute, premium included, keeps the interval above 2 ms, where rounding
	// it to whole microseconds costs less than a thousandth of the rate.
	maxPerMinute  = 30_000
	maxMultiplier = 1_000
	// minShare keeps the intervals of the smallest share within what can be counted.
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

// Run returns the limits of policy run.
func (c Config) Run() Tiers { return NewTiers(c.RunBurst, c.RunPerMinute, c.PremiumMultiplier) }

// Assistant returns the limits of policy assistant.
func (c Config) Assistant() Tiers {
	burst := c.AssistantBurst
	if burst == 0 {
		burst = c.AssistantPerMinute
	}
	return NewTiers(burst, c.AssistantPerMinute, c.PremiumMultiplier)
}
