package load

import (
	"testing"
	"time"
)

// TestQuantilesAreWithinThreePercent is what the width of the slots promises.
func TestQuantilesAreWithinThreePercent(t *testing.T) {
	t.Parallel()
	for _, unit := range []time.Duration{time.Microsecond, 37 * time.Microsecond, time.Millisecond} {
		var r Result
		for i := 1; i <= 1000; i++ {
			r.add(Allowed, time.Duration(i)*unit)
		}
		for q, want := range map[float64]time.Duration{.5: 500 * unit, .99: 990 * unit} {
			if got := r.Quantile(q); got < want*97/100 || got > want*103/100 {
				t.Errorf("quantile %v: %v, want about %v", q, got, want)
			}
		}
	}
}

func TestSharesAndRate(t *testing.T) {
	t.Parallel()
	a, b := Result{Took: 2 * time.Second}, Result{}
	a.add(Allowed, time.Millisecond)
	b.add(Limited, time.Millisecond)
	b.add(Shed, time.Millisecond)
	b.add(Failed, time.Millisecond)
	a.merge(&b)
	if a.Rate() != 2 || a.Answers() != 4 {
		t.Errorf("%d answers, %v a second; want 4 and 2", a.Answers(), a.Rate())
	}
	for v := range verdicts {
		if a.Share(v) != 0.25 {
			t.Errorf("share of %v is %v, want 0.25", v, a.Share(v))
		}
	}
}
