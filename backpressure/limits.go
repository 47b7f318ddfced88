package backpressure

import (
	"math"
	"time"
)

// Limits say when the queue is full or slow, and how much of it one caller may use. They
// may change while the gate runs; see [Monitor.SetLimits] and [Monitor.View].
type Limits struct {
	// MaxPending is the number of waiting jobs at which the queue is full; 0 switches the
	// check off. With 40, the 41st job is not admitted.
	MaxPending int
	// MaxAge is the age of the oldest waiting job at which the queue is slow; 0 switches
	// the check off.
	MaxAge time.Duration
	// Reserve is the part of both thresholds that only some callers may use, from 0 to
	// below 1; see [Asker].
	Reserve float64
	// FairShare bounds the jobs of one caller to so many times the places that stay free; 0:
	// there is no such bound.
	FairShare float64
}

// class tells callers that may have the reserved places from the others.
type class int

const (
	plain class = iota
	reserved
	classes // how many there are
)

// thresholds are the limits that the callers of a class see. A threshold of 0 is none.
type thresholds struct {
	class class
	// pending is the number of jobs at which the queue is full; [Place] has it.
	pending int
	// full is the number of jobs at which nobody gets a place. With a fair share it is below
	// pending: not even one job is a share of the last free places then.
	full int
	age  time.Duration
}

// bounds are the limits in force, never changed once they are stored.
type bounds struct {
	Limits

	of [classes]thresholds
}

func newBounds(l Limits) *bounds {
	b := &bounds{Limits: l}
	b.of[reserved] = thresholds{class: reserved, pending: l.MaxPending, age: l.MaxAge}
	b.of[plain] = thresholds{class: plain, pending: l.plainPending(), age: time.Duration((1 - l.Reserve) * float64(l.MaxAge))}
	for c := range b.of {
		b.of[c].full = l.full(b.of[c].pending)
	}
	return b
}

// rounding is how close to a whole number a number is taken for it. Decimal settings are
// not exact in binary: (1 - 0.9) × 10 is 0.999….
const rounding = 1e-12

// plainPending is the threshold of callers without the reserved places, rounded down, so
// that the reserve is never smaller than asked for. It is at least 1: with MaxPending 1
// nothing can be reserved.
func (l Limits) plainPending() int {
	if l.Reserve == 0 || l.MaxPending == 0 {
		return l.MaxPending
	}
	return max(1, min(floor((1-l.Reserve)*float64(l.MaxPending)), l.MaxPending-1))
}

// full is the number of jobs from which on not even one job is a share of what stays free.
func (l Limits) full(pending int) int {
	if l.FairShare == 0 || pending == 0 {
		return pending
	}
	return max(1, floor(float64(pending)-1/l.FairShare))
}

// Place is the place that a caller asks for in a queue with these limits.
func (l Limits) Place(a Asker) Place { return newBounds(l).place(a) }

func (b *bounds) place(a Asker) Place {
	p := Place{Limit: b.seen(a).pending}
	if b.FairShare > 0 && p.Limit > 0 {
		p.Share, p.Caller = b.FairShare, a.Sharer
	}
	return p
}

// MayHold is how many jobs the caller may have while so many wait or are on their way, its own
// among them. It means nothing if Share is 0.
func (p Place) MayHold(pending int64) int {
	return max(0, floor(p.Share*float64(int64(p.Limit)-pending)))
}

func floor(x float64) int { return int(math.Floor(x * (1 + rounding))) }

// seen returns what a caller sees. Without a reserve, all callers are of one class.
func (b *bounds) seen(a Asker) thresholds {
	if a.Reserved && b.Reserve > 0 {
		return b.of[reserved]
	}
	return b.of[plain]
}
