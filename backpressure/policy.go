package backpressure

import (
	"math"
	"time"
)

// State is what the queue is like for somebody who wants to add a job.
type State string

// The closed set of states; they are label values too.
const (
	StateOK      State = "ok"
	StateFull    State = "full"    // too many jobs wait
	StateSlow    State = "slow"    // the oldest job has waited too long
	StateUnknown State = "unknown" // nothing recent is known
)

var states = [...]State{StateOK, StateFull, StateSlow, StateUnknown}

// Verdict is a state with the time after which to ask again.
type Verdict struct {
	State State
	// RetryAfter is in whole seconds, at least one; 0 for StateOK.
	RetryAfter time.Duration
}

// maxJitter is the part of a wait by which it may be prolonged, so that those
// sent away together don't come back together.
const maxJitter = 0.2

// judge applies the thresholds to the newest sample (nil: none yet). The wait is
// without jitter.
func judge(cfg Config, s *snapshot, now time.Time) (State, time.Duration) {
	if cfg.MaxPending == 0 && cfg.MaxAge == 0 {
		return StateOK, 0
	}
	if !fresh(cfg, s, now) {
		return StateUnknown, cfg.RetryDelay
	}
	if cfg.MaxPending > 0 && s.full {
		return StateFull, fullWait(cfg, s.pending, s.drainPerSecond)
	}
	if cfg.MaxAge == 0 {
		return StateOK, 0
	}
	if !s.ageKnown {
		return StateUnknown, cfg.RetryDelay
	}
	if s.slow {
		return StateSlow, slowWait(cfg, s)
	}
	return StateOK, 0
}

// mark applies the thresholds with hysteresis: a state begins at its threshold and
// ends below nine tenths of it, so that a queue that moves around a threshold does
// not change its state with every sample. before is the sample before, nil if
// there is none.
func (s *snapshot) mark(cfg Config, before *snapshot) {
	wasFull, wasSlow := false, false
	if before != nil {
		wasFull, wasSlow = before.full, before.slow
	}
	s.full = over(float64(s.pending), float64(cfg.MaxPending), wasFull)
	s.slow = s.ageKnown && over(s.age.Seconds(), cfg.MaxAge.Seconds(), wasSlow)
}

// over says whether value is at or above its threshold, or was and has not gone
// down by a tenth since. A threshold of 0 is none.
func over(value, threshold float64, was bool) bool {
	if threshold == 0 {
		return false
	}
	return value >= threshold || (was && value >= 0.9*threshold)
}

func fresh(cfg Config, s *snapshot, now time.Time) bool {
	return s != nil && now.Sub(s.at) <= cfg.StaleAfter
}

// fullWait is the time until the queue is one job below the limit.
func fullWait(cfg Config, pending int64, perSecond float64) time.Duration {
	return drainTime(cfg, float64(max(1, pending-int64(cfg.MaxPending)+1)), perSecond)
}

// slowWait is the time until no job is older than the limit. How many are is
// estimated as if they had come evenly since the oldest did.
func slowWait(cfg Config, s *snapshot) time.Duration {
	older := max(0, float64(s.age-cfg.MaxAge)) / float64(s.age)
	return drainTime(cfg, 1+float64(s.pending)*older, s.drainPerSecond)
}

func drainTime(cfg Config, jobs, perSecond float64) time.Duration {
	if perSecond <= 0 {
		return cfg.RetryDelay
	}
	seconds := jobs / perSecond
	if seconds >= cfg.RetryMax.Seconds() {
		return cfg.RetryMax
	}
	return max(cfg.RetryDelay, time.Duration(seconds*float64(time.Second)))
}

// verdict completes a judgement; jitter is a random number from 0 to 1.
func verdict(state State, wait time.Duration, jitter float64) Verdict {
	if state == StateOK {
		return Verdict{State: StateOK}
	}
	seconds := math.Ceil(wait.Seconds() * (1 + maxJitter*jitter))
	return Verdict{State: state, RetryAfter: time.Duration(max(1, seconds)) * time.Second}
}
