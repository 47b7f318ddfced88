package policy

import "time"

// Environment has the settings that stand for a policy file while there is none.
type Environment struct {
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
	// QueueName is the name of the SAQ queue, as in Queue.from_url(url, name="default").
	QueueName string `env:"QUEUE_NAME" envDefault:"default"`
	// MaxPending is the number of waiting jobs at which the queue is full; 0 switches the
	// check off. With 40, the 41st job is not admitted.
	MaxPending int `env:"QUEUE_MAX_PENDING" envDefault:"40"`
	// MaxAge is the age of the oldest waiting job at which the queue is slow; 0 switches
	// the check off.
	MaxAge time.Duration `env:"QUEUE_MAX_AGE_SECONDS" envDefault:"600"`

	Switches
}

// Switches are the settings that SWITCHES_FILE can change while the gate runs.
type Switches struct {
	// LimitShadow and QueueShadow say for which policies the rate limits and the queue
	// checks are in shadow mode.
	LimitShadow ShadowList `env:"RATE_LIMIT_SHADOW" envDefault:"false"`
	QueueShadow ShadowList `env:"QUEUE_SHADOW" envDefault:"false"`
}
