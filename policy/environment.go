package policy

import (
	"fmt"
	"math"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

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

// Validate returns every mistake, each beginning with its variable's name.
func (e Environment) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("RATE_LIMIT_RUN_BURST", settings.Within(e.RunBurst, 1, maxBurst))
	mistakes.Add("RATE_LIMIT_RUN_PER_MINUTE", settings.Within(e.RunPerMinute, 1, maxPerMinute))
	mistakes.Add("RATE_LIMIT_ASSISTANT_BURST", settings.Within(e.AssistantBurst, 0, maxBurst))
	mistakes.Add("RATE_LIMIT_ASSISTANT_PER_MINUTE", settings.Within(e.AssistantPerMinute, 1, maxPerMinute))
	mistakes.Add("RATE_LIMIT_PREMIUM_MULTIPLIER", e.validMultiplier())
	mistakes.Add("QUEUE_NAME", validQueueName(e.QueueName))
	mistakes.Add("QUEUE_MAX_PENDING", settings.Within(e.MaxPending, 0, maxPending))
	mistakes.Add("QUEUE_MAX_AGE_SECONDS", settings.Within(e.MaxAge, 0, maxAge))
	return mistakes
}

func (e Environment) validMultiplier() error {
	switch m := e.PremiumMultiplier; {
	case math.IsNaN(m) || math.IsInf(m, 0) || m > maxFactor:
		return fmt.Errorf("%v is not a number of at most %d", m, maxFactor)
	case m*float64(max(e.RunPerMinute, e.AssistantPerMinute)) > maxPerMinute:
		return fmt.Errorf("%v times the larger of the rates is above %d per minute", m, maxPerMinute)
	}
	return nil
}

// File returns the policy file that the settings amount to; without queue, one that
// watches no queue.
func (e Environment) File(queue bool) *File {
	assistantBurst := e.AssistantBurst
	if assistantBurst == 0 {
		assistantBurst = e.AssistantPerMinute
	}
	f := &File{
		Tiers: []Tier{{Name: "premium", Factor: max(1, e.PremiumMultiplier)}},
		Policies: []Policy{
			presetPolicy(presetRun, e.RunBurst, e.RunPerMinute),
			presetPolicy(presetAssistant, assistantBurst, e.AssistantPerMinute),
		},
	}
	f.Policies[0].Shadow = Shadow{Limits: e.LimitShadow.run, Queue: e.QueueShadow.run}
	f.Policies[1].Shadow = Shadow{Limits: e.LimitShadow.assistant, Queue: e.QueueShadow.assistant}
	if queue {
		f.Queues = []Queue{{Name: e.QueueName, MaxPending: e.MaxPending, MaxAge: e.MaxAge}}
		f.Policies[0].Queue, f.Policies[0].BecomesJob = e.QueueName, true
		f.Policies[1].Queue = e.QueueName
	}
	return f
}

// presetPolicy returns the policy for a path and all paths below it.
func presetPolicy(name string, burst, perMinute int64) Policy {
	rate := Rate{Count: perMinute, Unit: time.Minute}
	return Policy{
		Name:  name,
		Match: []string{"/" + name, "/" + name + "/"},
		Buckets: []Bucket{
			{Per: PerIP, Burst: burst, Rate: rate, Tiered: true},
			{Per: PerUser, Burst: burst, Rate: rate, Tiered: true},
		},
	}
}
