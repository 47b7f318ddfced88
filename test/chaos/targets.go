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

	// slower is by which part of the Checks, at most, a Check with open breakers may be slow more often
	// than one about which the gate asks nobody.
	slower = 0.01
	// work is how many times as much a guarded Check has to do, so that a busy machine keeps it waiting as much more often.
	work = 2
)

// late lists the targets that were missed. Times are held to what the machine could do meanwhile.
func (f Figures) late() (missed []string) {
	add := func(format string, args ...any) { missed = append(missed, fmt.Sprintf(format, args...)) }
	if f.Longest > firstWait+work*f.Idle && !f.Fault.Lost {
		add("a Check took %v, the target is %v, and one about which the gate asks nobody took %v", round(f.Longest), firstWait, round(f.Idle))
	}
	if p := f.Pairs; p.N > 0 && float64(p.Slow-work*p.Machine) > slower*float64(p.N)+1 {
		add("with open breakers %d of %d Checks took more than %v, of those about which the gate asks nobody %d", p.Slow, p.N, p.Over, p.Machine)
	}
	if f.Recovered > recovery+f.Stall {
		add("recovered after %v, the target is %v, and the machine stalled for %v", round(f.Recovered), recovery, round(f.Stall))
	}
	return missed
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
