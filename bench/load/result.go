package load

import (
	"math/bits"
	"time"
)

// Verdict is what an answer says.
type Verdict int

// The verdicts. Shed is a 503 of the gate; Failed is every answer that is none of the others.
const (
	Allowed Verdict = iota
	Limited
	Shed
	Failed
	verdicts
)

// String is the verdict's name in tables.
func (v Verdict) String() string {
	return [...]string{"allowed", "limited", "shed", "failed"}[v]
}

// Result counts answers.
type Result struct {
	Took   time.Duration
	Counts [verdicts]int64

	times [2048]int64 // how many answers took how long, see slot
}

// Each power of two of nanoseconds has 32 slots, so a slot is 3 % wide.
const fine = 5

func slot(d time.Duration) int {
	n := uint64(max(d, 1<<fine))
	shift := bits.Len64(n) - 1 - fine
	return shift<<fine + int(n>>shift)
}

// middle is the time in the middle of a slot.
func middle(slot int) time.Duration {
	shift := slot>>fine - 1
	return time.Duration((uint64(slot&(1<<fine-1)|1<<fine)<<1 + 1) << shift >> 1)
}

func (r *Result) add(v Verdict, d time.Duration) {
	r.Counts[v]++
	r.times[slot(d)]++
}

func (r *Result) merge(o *Result) {
	for i, n := range o.Counts {
		r.Counts[i] += n
	}
	for i, n := range o.times {
		r.times[i] += n
	}
}

// Answers is the number of all answers.
func (r *Result) Answers() int64 {
	var n int64
	for _, c := range r.Counts {
		n += c
	}
	return n
}

// Rate is answers per second.
func (r *Result) Rate() float64 { return float64(r.Answers()) / r.Took.Seconds() }

// Share is the part of the answers that had a verdict.
func (r *Result) Share(v Verdict) float64 {
	return float64(r.Counts[v]) / float64(max(1, r.Answers()))
}

// Quantile is the time within which the part q of the answers came.
func (r *Result) Quantile(q float64) time.Duration {
	left := int64(q * float64(r.Answers()))
	for i, n := range r.times {
		if left -= n; left < 0 {
			return middle(i)
		}
	}
	return 0
}
