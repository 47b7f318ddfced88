// Package quota holds token buckets: the mathematics, a store in Redis that all
// replicas share, the same in memory, and the change-over between the two.
//
// A bucket is stored as its debt: the time until it is full again. A full
// bucket is stored nowhere, so callers that are idle cost nothing.
package quota

import (
	"context"
	"math"
	"time"
)

// Limit is the size of a bucket and the pace at which it refills.
type Limit struct {
	// Capacity is the number of tokens in a full bucket; at least 1.
	Capacity int64
	// Interval is the time in which one token is refilled, in whole microseconds; above 0.
	Interval time.Duration
}

// Span is the time in which an empty bucket becomes full.
func (l Limit) Span() time.Duration { return time.Duration(l.Capacity) * l.Interval }

// Scaled returns the limit with capacity and rate multiplied by share (above 0,
// at most 1); at least one token is left.
func (l Limit) Scaled(share float64) Limit {
	return Limit{
		Capacity: max(1, floor(float64(l.Capacity)*share)),
		Interval: ceilMicros(float64(l.Interval/time.Microsecond) / share),
	}
}

// Tiers are the limits of one policy, by the caller's tier.
type Tiers struct{ Plain, Premium Limit }

// NewTiers computes the limits for capacity tokens refilled at perMinute, and
// the premium ones with both multiplied by multiplier (under 1 counts as 1).
// Intervals are rounded up: the rate is never above what was asked for.
func NewTiers(capacity, perMinute int64, multiplier float64) Tiers {
	multiplier = max(1, multiplier)
	minute := float64(time.Minute / time.Microsecond)
	t := Tiers{
		Plain:   Limit{capacity, ceilMicros(minute / float64(perMinute))},
		Premium: Limit{max(capacity, floor(float64(capacity)*multiplier)), ceilMicros(minute / (float64(perMinute) * multiplier))},
	}
	// A bucket that is empty stays empty when its caller changes tier. Where many
	// short intervals, each rounded up, would make room for a premium token in an
	// empty plain bucket, the plain interval is stretched by what they add up to.
	if t.Premium.Span()-t.Plain.Span() >= t.Premium.Interval {
		t.Plain.Interval = ceilMicros(float64(t.Premium.Span()/time.Microsecond) / float64(capacity))
	}
	return t
}

// Decimal settings are not exact in binary (10 × 2.3 is 22.999…): what is this
// close to a whole number is meant to be one.
const rounding = 1e-9

func floor(x float64) int64 { return int64(math.Floor(x * (1 + rounding))) }

func ceilMicros(us float64) time.Duration {
	return time.Duration(math.Ceil(us*(1-rounding))) * time.Microsecond
}

// Result is the outcome of one Take.
type Result struct {
	// Limit is the limit that was applied.
	Limit Limit
	// Taken says whether each bucket gave a token; if not, none did.
	Taken bool
	// Debt is the time until the emptiest of the buckets is full again, after
	// the taking.
	Debt time.Duration
	// Fallback says that the buckets were this process's own, because the shared
	// ones could not be asked.
	Fallback bool
}

// Remaining is the number of tokens left in the emptiest bucket.
func (r Result) Remaining() int64 {
	return max(0, int64((r.Limit.Span()-r.Debt)/r.Limit.Interval))
}

// NextToken is the time until the emptiest bucket holds one token more than
// now; 0 if it is full. After a Take that failed this is how long to wait.
func (r Result) NextToken() time.Duration {
	if r.Debt <= 0 {
		return 0
	}
	return r.Debt - (r.Limit.Span() - time.Duration(r.Remaining()+1)*r.Limit.Interval)
}

// Store keeps buckets by key.
type Store interface {
	// Take takes one token from each bucket or, if one of them is empty, from none.
	Take(ctx context.Context, limit Limit, keys ...string) (Result, error)
	// Give puts back what a Take with result r took.
	Give(ctx context.Context, r Result, keys ...string) error
}

// Key is the name under which the bucket of a subject (see package authz) for a
// policy is stored.
func Key(policy, subject string) string { return "refrakt:gate:bucket:" + policy + ":" + subject }
