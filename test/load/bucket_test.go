package load

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestBounds plays a bucket that is asked at any of the moments that an answer leaves open; what it admits is within the
// bounds.
func TestBounds(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	b := bucket{5, time.Second}
	for range 2000 {
		var answers []Answer
		var takes []time.Time
		for range 1 + random.IntN(60) {
			sent := begin.Add(time.Duration(random.IntN(12_000)) * time.Millisecond)
			took := time.Duration(1+random.IntN(400)) * time.Millisecond
			answers = append(answers, Answer{Sent: sent, Done: sent.Add(took)})
			takes = append(takes, sent.Add(time.Duration(random.Int64N(int64(took)))))
		}
		slices.SortFunc(takes, time.Time.Compare)
		full, got := begin, 0
		for _, at := range takes {
			if full.Before(at) {
				full = at
			}
			if full.Add(b.interval).Sub(at) <= time.Duration(b.capacity)*b.interval {
				full = full.Add(b.interval)
				got++
			}
		}
		if least, most := b.bounds(answers); got < least || got > most {
			t.Fatalf("%d admitted, bounds %d and %d, of %v", got, least, most, answers)
		}
	}
	// Answers at once leave nothing open: 5 that it held, and one at each of 1 to 9 s.
	var exact []Answer
	for i := range 100 {
		at := begin.Add(time.Duration(i) * 100 * time.Millisecond)
		exact = append(exact, Answer{Sent: at, Done: at})
	}
	if least, most := b.bounds(exact); least != 14 || most != 14 {
		t.Errorf("100 requests within 9.9 s: %d to %d admitted, want 14", least, most)
	}
}
