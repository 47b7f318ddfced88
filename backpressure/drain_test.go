package backpressure

import (
	"math"
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	t.Parallel()
	type step struct {
		second                 float64
		pending, left, running int64
		fleet, own             int64
		more                   bool // may have left
		want                   flow
	}
	none := flow{share: 1}
	cases := map[string][]step{
		"one sample tells nothing": {{pending: 10, left: 5, want: none}},
		"steady": {
			{pending: 10, want: none},
			{second: 1, pending: 8, left: 2, want: flow{2, 2, 2, 1}},
			{second: 2, pending: 6, left: 2, want: flow{2, 2, 4, 1}},
		},
		"a full queue that stays full": {
			{pending: 40, want: none},
			{second: 1, pending: 40, left: 10, want: flow{10, 10, 10, 1}},
			{second: 2, pending: 40, left: 10, fleet: 40, own: 10, want: flow{10, 10, 20, 0.25}},
			{second: 3, pending: 40, left: 10, fleet: 20, own: 20, want: flow{10, 10, 30, 0.5}}, // was forgotten, and began anew
			{second: 4, pending: 40, left: 10, fleet: 30, own: 60, want: flow{10, 10, 40, 1}},
		},
		"a cursor that does not move": { // workers take from the other end
			{pending: 10, want: none},
			{second: 1, pending: 7, want: flow{3, 3, 3, 1}},
		},
		"more leave than had waited": {
			{pending: 40, want: none},
			{second: 1, pending: 30, left: 40, more: true, want: flow{40, 40, 40, 1}},
			{second: 2, pending: 40, left: 30, more: true, want: flow{35, 40, 40, 1}},
			{second: 3, pending: 25, left: 15, want: flow{85. / 3, 40, 40, 1}},
			{second: 4, pending: 1, left: 65, want: flow{37.5, 40, 80, 1}},
		},
		"only growth": {{pending: 1, want: none}, {second: 1, pending: 5, want: none}},
		"workers that had nothing to do": {
			{pending: 40, running: 0, want: none},
			{second: 1, pending: 32, left: 8, running: 8, want: flow{8, 0, 0, 1}},
			{second: 2, pending: 30, left: 2, running: 8, want: flow{5, 1, 2, 1}},
			{second: 3, pending: 27, left: 3, running: 7, want: flow{13. / 3, 2, 6, 1}}, // one between two jobs
		},
		"a queue that runs empty": { // what workers could do was not seen
			{pending: 3, want: none},
			{second: 1, pending: 0, left: 3, want: flow{leaving: 3, share: 1}},
			{second: 2, pending: 4, left: 0, want: flow{leaving: 1.5, share: 1}},
			{second: 3, pending: 2, left: 2, want: flow{5. / 3, 2, 2, 1}},
		},
		"same moment": {{pending: 10, want: none}, {pending: 5, left: 5, want: none}},
		"the last 30 s where jobs are many": {
			{pending: 500, want: none},
			{second: 10, pending: 300, left: 200, want: flow{20, 20, 200, 1}},
			{second: 40, pending: 270, left: 30, want: flow{1, 1, 30, 1}},
		},
		"further back where they are few": {
			{pending: 500, want: none},
			{second: 50, pending: 495, left: 5, want: flow{0.1, 0.1, 5, 1}},
			{second: 100, pending: 490, left: 5, want: flow{0.1, 0.1, 10, 1}},
			{second: 700, pending: 487, left: 3, want: flow{0.005, 8. / 650, 8, 1}}, // the first 50 s are too long ago
			{second: 1400, pending: 487, want: none},
		},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d drain
			start := time.Now()
			for i, s := range steps {
				at := start.Add(time.Duration(s.second * float64(time.Second)))
				r := Sample{Pending: s.pending, Left: s.left, LeftExact: !s.more, Running: s.running, Admitted: s.fleet}
				got := d.observe(at, r, s.own)
				if !same(got, s.want) {
					t.Errorf("step %d: %+v, want %+v", i, got, s.want)
				}
			}
		})
	}
}

func same(a, b flow) bool {
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	return near(a.leaving, b.leaving) && near(a.perSecond, b.perSecond) && near(a.jobs, b.jobs) && near(a.share, b.share)
}

func TestDrainStaysSmall(t *testing.T) {
	t.Parallel()
	var d drain
	start := time.Now()
	var last flow
	for i := range 20_000 {
		last = d.observe(start.Add(time.Duration(i)*50*time.Millisecond), Sample{Pending: 40, Left: 1, LeftExact: true, Admitted: int64(i)}, 0)
	}
	if len(d.spans) > 601 {
		t.Errorf("%d spans kept, want 601 at most", len(d.spans))
	}
	if want := (flow{20, 20, 600, 1. / 12000}); math.Abs(last.jobs-want.jobs) > 30 || math.Abs(last.perSecond-want.perSecond) > 1e-6 {
		t.Errorf("%+v, want about %+v", last, want)
	}
}
