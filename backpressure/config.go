package backpressure

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Config is what the operator decides about the queue. Durations may be given
// as plain seconds; the parser for that is the program's.
type Config struct {
	// QueueName is the SAQ queue to watch.
	QueueName string `env:"QUEUE_NAME" envDefault:"default"`
	// MaxPending is the number of waiting jobs at which the queue is full; 0 switches the check off.
	MaxPending int `env:"QUEUE_MAX_PENDING" envDefault:"40"`
	// MaxAge is the age of the oldest waiting job at which the queue is slow; 0 switches the check off.
	MaxAge time.Duration `env:"QUEUE_MAX_AGE_SECONDS" envDefault:"600"`
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
	// JobSources are the values of a job's kwargs.source that are counted by name.
	JobSources Sources `env:"JOB_SOURCES" envDefault:"api,assistant"`
}

// The bounds are far from any sensible value; they catch a wrong unit.
const (
	maxNameBytes = 256
	maxCount     = 1_000_000_000
	day          = 24 * time.Hour
	year         = 366 * day
)

// Validate returns every mistake there is; each begins with the name of its variable.
func (c Config) Validate() []error {
	var errs []error
	fail := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
	}
	within := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			fail(name, "must be between %s and %s, is %s", low, high, d)
		}
	}

	switch {
	case c.QueueName == "":
		fail("QUEUE_NAME", "must not be empty")
	case len(c.QueueName) > maxNameBytes:
		fail("QUEUE_NAME", "must have at most %d bytes, has %d", maxNameBytes, len(c.QueueName))
	case !utf8.ValidString(c.QueueName) || strings.ContainsFunc(c.QueueName, unfit):
		fail("QUEUE_NAME", "must not contain spaces or control characters, is %q", c.QueueName)
	}
	if c.MaxPending < 0 || c.MaxPending > maxCount {
		fail("QUEUE_MAX_PENDING", "must be between 0 and %d, is %d", maxCount, c.MaxPending)
	}
	within("QUEUE_MAX_AGE_SECONDS", c.MaxAge, 0, year)
	within("QUEUE_SAMPLE_INTERVAL", c.SampleInterval, 10*time.Millisecond, time.Hour)
	within("QUEUE_STALE_AFTER", c.StaleAfter, time.Millisecond, day)
	if c.StaleAfter <= c.SampleInterval {
		fail("QUEUE_STALE_AFTER", "must be longer than QUEUE_SAMPLE_INTERVAL (%s), is %s", c.SampleInterval, c.StaleAfter)
	}
	within("QUEUE_ADMISSION_WINDOW", c.AdmissionWindow, time.Millisecond, time.Minute)
	within("QUEUE_RETRY_DELAY", c.RetryDelay, time.Millisecond, day)
	within("QUEUE_RETRY_MAX", c.RetryMax, time.Millisecond, day)
	if c.RetryMax < c.RetryDelay {
		fail("QUEUE_RETRY_MAX", "must not be shorter than QUEUE_RETRY_DELAY (%s), is %s", c.RetryDelay, c.RetryMax)
	}
	within("PROMETHEUS_QUEUE_POLL_INTERVAL", c.PollInterval, 10*time.Millisecond, time.Hour)
	if err := c.JobSources.validate(); err != nil {
		fail("JOB_SOURCES", "%w", err)
	}
	return errs
}

func unfit(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Sources are the values of a job's `source` that are counted by name. They are
// comma-separated in the environment.
type Sources []string

// UnmarshalText reads a comma-separated list.
func (s *Sources) UnmarshalText(text []byte) error {
	*s = nil
	for name := range strings.SplitSeq(string(text), ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(*s, name) {
			*s = append(*s, name)
		}
	}
	return nil
}

// String is the list as it may stand in the environment.
func (s Sources) String() string { return strings.Join(s, ",") }

// maxSources keeps the number of series small.
const maxSources = 50

func (s Sources) validate() error {
	if len(s) > maxSources {
		return fmt.Errorf("at most %d sources, has %d", maxSources, len(s))
	}
	for _, name := range s {
		switch {
		case name == sourceOther || name == sourceUnknown:
			return fmt.Errorf("%q is what sources without a name of their own are counted as", name)
		case len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unfit):
			return fmt.Errorf("%q is too long or holds spaces or control characters", name)
		}
	}
	return nil
}
