// Package property_test holds the gate's code to what must be true of all inputs, with inputs made by rapid.
package property_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/refrakt-hub/refrakt-gate/quota"
	"github.com/refrakt-hub/refrakt-gate/quota/quotatest"
)

// step is one request of a caller, after a pause.
type step struct {
	pause time.Duration
	keys  []string
}

// TestNeverAboveCapacityPlusRate: however requests come, no bucket gives more than capacity + rate·t in any time t, and
// a request is denied only where a bucket is empty.
func TestNeverAboveCapacityPlusRate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		capacity := rapid.Int64Range(1, 20).Draw(rt, "capacity")
		perMinute := rapid.Int64Range(1, 1_000_000).Draw(rt, "per minute")
		limit := quota.Limits(capacity, perMinute, time.Minute, 1)[0]
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			s := step{pause: time.Duration(rapid.Int64Range(0, int64(2*limit.Interval)).Draw(rt, "pause")), keys: []string{"ip"}}
			if rapid.Bool().Draw(rt, "with a user") {
				s.keys = append(s.keys, fmt.Sprint("user", rapid.IntRange(0, 2).Draw(rt, "user")))
			}
			return s
		}), 1, 100).Draw(rt, "steps")
		// Failures leave the bubble as text: rapid unwinds the stack, which a bubble is not made for.
		var wrong string
		synctest.Test(t, func(t *testing.T) { wrong = play(t, limit, steps) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// play returns what was wrong.
func play(t *testing.T, limit quota.Limit, steps []step) string {
	memory := quota.NewMemory()
	taken := map[string][]time.Time{}
	for i, s := range steps {
		time.Sleep(s.pause)
		r, err := memory.Take(t.Context(), quotatest.Of(limit, s.keys...))
		if err != nil {
			return fmt.Sprintf("step %d: %v", i, err)
		}
		now, full := time.Now(), false
		for _, key := range s.keys {
			// A bucket that has given as much as it may in some time up to now is empty.
			for j, since := range taken[key] {
				given := int64(len(taken[key]) - j)
				allowed := limit.Capacity + int64(now.Sub(since)/limit.Interval)
				if r.Taken && given+1 > allowed {
					return fmt.Sprintf("step %d: %s gave %d in %v, %d allowed", i, key, given+1, now.Sub(since), allowed)
				}
				full = full || given+1 > allowed
			}
		}
		if !r.Taken && !full {
			return fmt.Sprintf("step %d: denied, though none of %v is empty", i, s.keys)
		}
		if r.Taken {
			for _, key := range s.keys {
				taken[key] = append(taken[key], now)
			}
		}
	}
	return ""
}
