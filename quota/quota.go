// Package quota holds token buckets: their mathematics, a store in Redis that all
// replicas share, a store in memory, and the failover from the one to the other.
//
// A store keeps the debt of a bucket: the time until the bucket is full. It keeps
// nothing of a full bucket, so idle callers cost nothing.
package quota

import (
	"context"
	"math"
	"math/big"
	"strconv"
	"time"
)

// Limit is the size of a bucket and the rate at which it refills. Its zero value is
// no limit that can be used.
type Limit struct {
	// Capacity is the number of tokens in a full bucket, so that many requests can
	// come at once; at least 1.
	Capacity int64
	// Interval is the time in which the bucket gains one token; above 0. With 10 s a
	// caller can go on with 6 requests a minute.
	Interval time.Duration
}

// Span is the time in which an empty bucket becomes full: 100 s for a capacity of
// 10 and an interval of 10 s.
func (l Limit) Span() time.Duration { return time.Duration(l.Capacity) * l.Interval }

// Scaled returns the limit with capacity and rate multiplied by share (above 0,
// at most 1). The capacity stays at least 1. Half of 10 tokens, one each 10 s, is 5
// tokens, one each 20 s.
func (l Limit) Scaled(share float64) Limit {
	capacity := max(1, floor(float64(l.Capacity)*share))
	// A bucket never takes longer to fill than a time can be.
	longest := float64(math.MaxInt64/2) / float64(capacity)
	return Limit{Capacity: capacity, Interval: ceil(min(longest, float64(l.Interval)/share))}
}

// Limits returns the limits of one bucket for several tiers of callers. Each tier
// multiplies capacity and rate by its factor, at least 1; the first factor is 1.
// Limits(10, 6, time.Minute, 1, 3) returns 10 tokens, 6 a minute, and 30 tokens, 18 a
// minute. Intervals are rounded up to whole nanoseconds, so the rate is never above the
// one asked for.
//
// A caller that changes its tier never gets more than the higher tier allows.
func Limits(capacity, count int64, unit time.Duration, factors ...float64) []Limit {
	limits := make([]Limit, len(factors))
	for i, f := range factors {
		// The factor is the decimal number that it is written as, and all is exact: in binary
		// 10 × 2.3 is 22.999….
		factor, _ := new(big.Rat).SetString(strconv.FormatFloat(max(1, f), 'f', -1, 64))
		rate := new(big.Rat).Mul(factor, big.NewRat(count, int64(unit)))
		limits[i] = Limit{wholes(new(big.Rat).Mul(factor, big.NewRat(capacity, 1)), 0), time.Duration(wholes(rate.Inv(rate), 1))}
	}
	// An empty bucket of the first tier must stay empty when its caller gets another tier.
	// Many short intervals, each rounded up, can add up to more than an interval of that
	// tier: the bucket would hold a token of it. The first interval is prolonged then.
	plain := &limits[0]
	for _, l := range limits[1:] {
		if l.Span()-plain.Span() >= l.Interval {
			plain.Interval = (l.Span() + time.Duration(plain.Capacity) - 1) / time.Duration(plain.Capacity)
		}
	}
	return limits
}

// wholes is x, at least 0, rounded down, plus up if x is no whole number.
func wholes(x *big.Rat, up int64) int64 {
	down, rest := new(big.Int).QuoRem(x.Num(), x.Denom(), new(big.Int))
	if rest.Sign() == 0 {
		return down.Int64()
	}
	return down.Int64() + up
}

// MaxDebt is the most that a bucket with these limits can owe, whatever the tier.
func MaxDebt(limits []Limit) time.Duration {
	var most time.Duration
	for _, l := range limits {
		most = max(most, l.Span())
	}
	return most
}

// rounding is how close to a whole number a number is taken for it. Decimal settings
// are not exact in binary: 10 × 2.3 is 22.999….
const rounding = 1e-12

func floor(x float64) int64 { return int64(math.Floor(x * (1 + rounding))) }

// ceil rounds a time in nanoseconds up.
func ceil(ns float64) time.Duration { return time.Duration(math.Ceil(ns * (1 - rounding))) }

// Result is the outcome of one Take.
type Result struct {
	// Taken says that one token was taken from each bucket. If it is false, none was
	// taken from any.
	Taken bool
	// Bucket is the index, in the request, of the bucket that runs out first. If a bucket
	// is empty, it is the one that will be so for the longest time.
	Bucket int
	// Limit is the limit of that bucket, as it was applied.
	Limit Limit
	// Debt is the time until that bucket is full, after the Take; from 0 to its most.
	Debt time.Duration
	// Place is what became of the wish for a place in the queue. Pending is how many jobs
	// waited or were on their way, if the place was given or the queue is full. With
	// PlaceShare it is how many jobs leave until one of the caller's has left.
	Place   PlaceOutcome
	Pending int64
	// Fallback says that the buckets were those of this process, because the shared
	// store could not be asked.
	Fallback bool
}

// Empty says that nothing was taken because a bucket is empty.
func (r Result) Empty() bool { return !r.Taken && r.Remaining() == 0 }

// Remaining is the number of tokens left in the bucket of the result.
func (r Result) Remaining() int64 {
	return max(0, int64((r.Limit.Span()-r.Debt)/r.Limit.Interval))
}

// NextToken is the time until that bucket holds one more token; 0 if it is full. If the
// bucket is empty, the caller has to wait for that long.
func (r Result) NextToken() time.Duration {
	if r.Debt <= 0 {
		return 0
	}
	return r.Debt - (r.Limit.Span() - time.Duration(r.Remaining()+1)*r.Limit.Interval)
}

// Store keeps buckets by key.
type Store interface {
	// Take takes one token from each bucket of the request. If one of them is empty, it
	// takes none.
	Take(ctx context.Context, req Request) (Result, error)
	// Refund puts back the tokens that a Take took from the buckets; r is its result. A
	// bucket never holds more than its capacity.
	Refund(ctx context.Context, r Result, buckets []Bucket) error
}

// Key is the name of a bucket in the store: "refrakt:gate:bucket:run:ip:192.0.2.1" for the
// bucket run and the subject ip:192.0.2.1 (see package authz).
func Key(bucket, subject string) string { return "refrakt:gate:bucket:" + bucket + ":" + subject }
