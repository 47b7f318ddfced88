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
	// StateShare is no state of the queue: it has room, but the caller has its share already.
	StateShare State = "share"
)

// Asker is a request that wants to know whether the queue has room for it.
type Asker struct {
	// Address is the subject of the caller's address, to which retry slots belong.
	Address string
	// Sharer is the subject whose jobs count together for a fair share of the queue: that of
	// a verified user, else that of the address.
	Sharer string
	// Reserved says that the caller may have the reserved places.
	Reserved bool
}

var states = [...]State{StateOK, StateFull, StateSlow, StateUnknown}

// Verdict is a state of the queue, judged for one caller.
type Verdict struct {
	State State
	// Provisional says that the newest sample found the queue full, but is too old to
	// turn a job away: Admit may find room. State is StateFull then.
	Provisional bool
	// RetryAfter returns how long the caller is to wait before it asks again, in whole
	// seconds, at least one. With StateFull it takes a retry slot for the caller: call
	// it once, and only if the caller is told. It is nil for StateOK.
	RetryAfter func() time.Duration
}

// maxJitter is the part of a wait by which it may be prolonged, so that those
// sent away together don't come back together.
const maxJitter = 0.2

// judge applies the thresholds of a caller to the newest sample (nil: none yet). The wait
// is without jitter.
func judge(cfg Config, to thresholds, s *snapshot, now time.Time) (State, time.Duration) {
	if to.pending == 0 && to.age == 0 {
		return StateOK, 0
	}
	if !fresh(cfg, s, now) {
		return StateUnknown, cfg.RetryDelay
	}
	if to.pending > 0 && s.full[to.class] {
		wait := fullWait(cfg, to, s)
		if s.slow[to.class] {
			wait = max(wait, slowWait(cfg, to, s))
		}
		return StateFull, wait
	}
	if to.age == 0 {
		return StateOK, 0
	}
	if !s.AgeKnown {
		return StateUnknown, cfg.RetryDelay
	}
	if s.slow[to.class] {
		return StateSlow, slowWait(cfg, to, s)
	}
	return StateOK, 0
}

// applyThresholds sets full and slow for each class, with hysteresis: a state begins at
// its threshold and ends below nine tenths of it. With a threshold of 40, full begins at
// 40 jobs and ends at 35. So a queue that moves around a threshold does not change its
// state with every sample. before is the sample before, nil if there is none.
func (s *snapshot) applyThresholds(b *bounds, before *snapshot) {
	s.by = b
	var wasFull, wasSlow [classes]bool
	if before != nil {
		wasFull, wasSlow = before.full, before.slow
	}
	for c, to := range b.of {
		s.full[c] = over(float64(s.Pending), float64(to.full), wasFull[c])
		s.slow[c] = s.AgeKnown && over(s.OldestAge.Seconds(), to.age.Seconds(), wasSlow[c])
	}
}

// judgedBy returns the same sample, judged by other limits.
func (s *snapshot) judgedBy(b *bounds) *snapshot {
	again := *s
	again.applyThresholds(b, s)
	return &again
}

// over reports whether value is at or above its threshold, or was and has not gone
// down by more than a tenth since. A threshold of 0 is none.
func over(value, threshold float64, was bool) bool {
	if threshold == 0 {
		return false
	}
	return value >= threshold || (was && value >= hysteresis*threshold)
}

// hysteresis is the part of its threshold below which a state ends.
const hysteresis = 0.9

func fresh(cfg Config, s *snapshot, now time.Time) bool {
	return s != nil && now.Sub(s.at) <= cfg.StaleAfter
}

// roomWait is the time until the queue is one job below its threshold.
func roomWait(cfg Config, to thresholds, pending int64, f flow) time.Duration {
	return drainTime(cfg, float64(pending-int64(to.full)+1), f, 0)
}

// fullWait is the time until a sample finds the queue no longer full.
func fullWait(cfg Config, to thresholds, s *snapshot) time.Duration {
	return drainTime(cfg, float64(s.Pending)-math.Ceil(hysteresis*float64(to.full))+1, s.flow, cfg.SampleInterval)
}

// slowWait is the time until a sample finds no job too old. The number of jobs that
// are too old is estimated as if jobs had come evenly since the oldest did. Jobs grow
// older while those before them are taken.
func slowWait(cfg Config, to thresholds, s *snapshot) time.Duration {
	jobs, over := float64(s.Pending), (s.OldestAge - time.Duration(hysteresis*float64(to.age))).Seconds()
	if s.flow.perSecond > 0 {
		if younger := s.OldestAge.Seconds()/jobs - 1/s.flow.perSecond; younger*jobs > over { // with each job
			jobs = over / younger
		}
	}
	return drainTime(cfg, 1+jobs, s.flow, cfg.SampleInterval)
}

// confidence is the number of standard deviations that are added to the mean wait, so
// that nine of ten waits are long enough where jobs leave at random. 1.28 would do for
// a normal distribution with a known rate. The rate is known from a few jobs only.
const confidence = 1.5

// drainTime is the time in which so many jobs leave with some confidence, plus the
// time until a sample sees that.
func drainTime(cfg Config, jobs float64, f flow, seen time.Duration) time.Duration {
	if f.perSecond <= 0 {
		return cfg.RetryDelay
	}
	// Both when they leave and the rate, for it is made from a few jobs too.
	jobs = max(1, jobs)
	seconds := (jobs+confidence*math.Sqrt(jobs+jobs*jobs/f.jobs))/f.perSecond + seen.Seconds()
	if seconds >= cfg.RetryMax.Seconds() {
		return cfg.RetryMax
	}
	return max(cfg.RetryDelay, time.Duration(seconds*float64(time.Second)))
}

// jittered prolongs a wait and rounds it; jitter is a random number from 0 to 1.
func jittered(wait time.Duration, jitter float64) time.Duration {
	return wholeSeconds(time.Duration(float64(wait) * (1 + maxJitter*jitter)))
}

// wholeSeconds rounds a wait up to what the header can say.
func wholeSeconds(wait time.Duration) time.Duration {
	return time.Duration(max(1, math.Ceil(wait.Seconds()))) * time.Second
}
