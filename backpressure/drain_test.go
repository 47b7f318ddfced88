package backpressure

import (
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	t.Parallel()
	type step struct {
		second  float64
		pending int64
		want    float64
	}
	cases := map[string][]step{
		"one sample tells nothing":         {{0, 10, 0}},
		"steady":                           {{0, 10, 0}, {1, 8, 2}, {2, 6, 2}},
		"only growth":                      {{0, 1, 0}, {1, 5, 0}, {2, 5, 0}},
		"growth doesn't hide what left":    {{0, 10, 0}, {1, 4, 6}, {2, 10, 3}, {3, 7, 3}},
		"same moment":                      {{0, 10, 0}, {0, 5, 0}},
		"a gap counts as time":             {{0, 10, 0}, {20, 0, 0.5}},
		"30 s are within the window":       {{0, 30, 0}, {30, 0, 1}},
		"forgotten after the window":       {{0, 100, 0}, {1, 0, 100}, {31, 0, 0}, {32, 0, 0}},
		"everything older than the window": {{0, 100, 0}, {1, 50, 50}, {100, 0, 0}, {101, 0, 0}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d drain
			start := time.Now()
			for i, s := range steps {
				at := start.Add(time.Duration(s.second * float64(time.Second)))
				if got := d.observe(at, s.pending); got != s.want {
					t.Errorf("step %d: rate %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

func TestDrainStaysSmall(t *testing.T) {
	t.Parallel()
	var d drain
	start := time.Now()
	for i := range 10_000 {
		d.observe(start.Add(time.Duration(i)*time.Second), int64(i))
	}
	if len(d.depths) != 31 {
		t.Errorf("%d depths kept, want 31", len(d.depths))
	}
}
