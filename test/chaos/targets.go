package chaos

import (
	"fmt"
	"time"
)

// What is wanted of the gate's speed. It depends on the machine too, so only `make chaos` holds the figures to it.
const (
	redisTimeout = 100 * time.Millisecond // the default of REDIS_TIMEOUT
	firstWait    = redisTimeout + 10*time.Millisecond
	openWait     = 5 * time.Millisecond
	recovery     = 2 * time.Second

	// quick is the part of Checks that must be within openWait. The others wait for a processor, not for Redis.
	quick = 0.99
)

// late lists the targets that were missed.
func (f Figures) late() (missed []string) {
	add := func(format string, args ...any) { missed = append(missed, fmt.Sprintf(format, args...)) }
	if f.Longest > firstWait && !f.Fault.Lost {
		add("a Check took %v, the target is %v", round(f.Longest), firstWait)
	}
	if f.Open > 0 && f.Under5ms < quick {
		add("%.2f %% of the Checks with open breakers took at most %v, the target is %.0f %%", 100*f.Under5ms, openWait, 100*quick)
	}
	if f.Recovered > recovery {
		add("recovered after %v, the target is %v", round(f.Recovered), recovery)
	}
	return missed
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
