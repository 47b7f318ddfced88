package backpressure

import (
	"fmt"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// Config is how queues are watched. It is the same for all queues and does not change
// while the gate runs; [Limits] may. Durations may be given as plain seconds; the parser
// for that is the program's.
type Config struct {
	// SampleInterval is the time between two looks at the queue.
	SampleInterval time.Duration `env:"QUEUE_SAMPLE_INTERVAL" envDefault:"1s"`
	// StaleAfter is the age at which a sample no longer says anything.
	StaleAfter time.Duration `env:"QUEUE_STALE_AFTER" envDefault:"5s"`
	// AdmissionWindow is how long an admitted request counts as a job that is still to come.
	AdmissionWindow time.Duration `env:"QUEUE_ADMISSION_WINDOW" envDefault:"500ms"`
	// RetryDelay is the shortest Retry-After, and the one given while the drain rate is unknown.
	RetryDelay time.Duration `env:"QUEUE_RETRY_DELAY" envDefault:"30s"`
	// RetryMax is the longest Retry-After, jitter aside.
	RetryMax time.Duration `env:"QUEUE_RETRY_MAX" envDefault:"600s"`
	// PollInterval is how often the gauges are set from the newest sample.
	PollInterval time.Duration `env:"PROMETHEUS_QUEUE_POLL_INTERVAL" envDefault:"5s"`
}

// day is far from any sensible value; it catches a wrong unit.
const day = 24 * time.Hour

// Validate returns every mistake there is; each begins with the name of its variable.
func (c Config) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("QUEUE_SAMPLE_INTERVAL", settings.Within(c.SampleInterval, 10*time.Millisecond, time.Hour))
	mistakes.Add("QUEUE_STALE_AFTER", settings.Within(c.StaleAfter, time.Millisecond, day))
	if c.StaleAfter <= c.SampleInterval {
		mistakes.Add("QUEUE_STALE_AFTER", fmt.Errorf("%v is not longer than QUEUE_SAMPLE_INTERVAL (%v)", c.StaleAfter, c.SampleInterval))
	}
	mistakes.Add("QUEUE_ADMISSION_WINDOW", settings.Within(c.AdmissionWindow, time.Millisecond, time.Minute))
	mistakes.Add("QUEUE_RETRY_DELAY", settings.Within(c.RetryDelay, time.Millisecond, day))
	mistakes.Add("QUEUE_RETRY_MAX", settings.Within(c.RetryMax, time.Millisecond, day))
	if c.RetryMax < c.RetryDelay {
		mistakes.Add("QUEUE_RETRY_MAX", fmt.Errorf("%v is shorter than QUEUE_RETRY_DELAY (%v)", c.RetryMax, c.RetryDelay))
	}
	mistakes.Add("PROMETHEUS_QUEUE_POLL_INTERVAL", settings.Within(c.PollInterval, 10*time.Millisecond, time.Hour))
	return mistakes
}
