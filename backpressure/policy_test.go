package backpressure

import (
	"math"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Now()
	snap := func(pending int64, age time.Duration) *snapshot {
		return &snapshot{Sample: Sample{Pending: pending, OldestAge: age, AgeKnown: true}, at: now}
	}
	draining := func(s *snapshot, perSecond float64) *snapshot {
		s.flow = flow{perSecond: perSecond, jobs: 1e12} // so many that nothing is left to chance but the jobs
		return s
	}
	ageless := func(pending int64) *snapshot {
		return &snapshot{Sample: Sample{Pending: pending}, at: now}
	}
	aged := func(s *snapshot, by time.Duration) *snapshot {
		s.at = now.Add(-by)
		return s
	}
	only := func(pending int, age time.Duration) Limits {
		return Limits{MaxPending: pending, MaxAge: age}
	}
	both := only(40, 600*time.Second)
	const delay, longest = 30 * time.Second, 600 * time.Second
	// sure is the time in which so many jobs surely leave, and a sample sees it.
	sure := func(jobs, perSecond float64) time.Duration {
		return time.Second + time.Duration((jobs+confidence*math.Sqrt(jobs))/perSecond*float64(time.Second))
	}

	cases := map[string]struct {
		to    Limits
		s     *snapshot
		state State
		wait  time.Duration
	}{
		"empty":           {both, snap(0, 0), StateOK, 0},
		"one below":       {both, snap(39, 599*time.Second), StateOK, 0},
		"at the limit":    {both, snap(40, 0), StateFull, delay},
		"at the age":      {both, snap(1, 600*time.Second), StateSlow, delay},
		"just below age":  {both, snap(1, 600*time.Second-time.Millisecond), StateOK, 0},
		"full before age": {both, snap(40, 700*time.Second), StateFull, delay},

		"no sample":                  {both, nil, StateUnknown, delay},
		"sample about to be stale":   {both, aged(snap(0, 0), 5*time.Second), StateOK, 0},
		"stale":                      {both, aged(snap(0, 0), 5*time.Second+1), StateUnknown, delay},
		"stale and full":             {both, aged(snap(90, 0), 6*time.Second), StateUnknown, delay},
		"age unknown":                {both, ageless(1), StateUnknown, delay},
		"age unknown but full":       {both, ageless(40), StateFull, delay},
		"age unknown, age unchecked": {only(40, 0), ageless(39), StateOK, 0},

		"pending unchecked":             {only(0, 600*time.Second), snap(1e6, 0), StateOK, 0},
		"pending unchecked, slow":       {only(0, 600*time.Second), snap(1, 601*time.Second), StateSlow, delay},
		"pending unchecked, no sample":  {only(0, 600*time.Second), nil, StateUnknown, delay},
		"age unchecked":                 {only(40, 0), snap(1, 1e6*time.Second), StateOK, 0},
		"age unchecked, stale":          {only(40, 0), aged(snap(1, 0), 6*time.Second), StateUnknown, delay},
		"both off, without a sample":    {only(0, 0), nil, StateOK, 0},
		"both off, with a stale sample": {only(0, 0), aged(snap(1e6, 1e6*time.Second), time.Hour), StateOK, 0},

		// 139 waiting, full until there are 35: 104 have to go.
		"full, drained at 2/s":      {both, draining(snap(139, 0), 2), StateFull, sure(104, 2)},
		"full, drained fast":        {both, draining(snap(139, 0), 1000), StateFull, delay},
		"full, hardly drained":      {both, draining(snap(139, 0), 0.01), StateFull, longest},
		"full by one":               {both, draining(snap(40, 0), 1.0/45), StateFull, sure(5, 1.0/45)},
		"limit of one":              {only(1, 0), draining(snap(1, 0), 1.0/45), StateFull, sure(1, 1.0/45)},
		"full, drained a tiny rate": {both, draining(snap(1<<62, 0), 1e-300), StateFull, longest},
		// 30 jobs over 800 s: each is 26.7 s younger than the one before it, but has to
		// wait 10 s longer. The one that is to be below 540 s is the 16.6th.
		"slow, drained at 0.1/s": {both, draining(snap(30, 800*time.Second), 0.1), StateSlow, sure(16.6, 0.1)},
		"slow, hardly drained":   {both, draining(snap(30, 800*time.Second), 0.001), StateSlow, longest},
		"slow by nothing":        {both, draining(snap(30, 600*time.Second), 0.2), StateSlow, sure(5, 0.2)},
		"slow until it is empty": {only(0, 100*time.Second), draining(snap(30, 1000*time.Second), 0.3), StateSlow, sure(31, 0.3)},
		"full and slow":          {both, draining(snap(40, 1200*time.Second), 1), StateFull, sure(1+660/29., 1)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBounds(tc.to)
			if tc.s != nil {
				tc.s.applyThresholds(b, nil)
			}
			state, wait := judge(validConfig(), b.of[plain], tc.s, now)
			if diff := wait - tc.wait; state != tc.state || diff.Abs() > time.Microsecond {
				t.Errorf("%s after %s, want %s after %s", state, wait, tc.state, tc.wait)
			}
		})
	}
}

func TestThresholds(t *testing.T) {
	t.Parallel()
	b := newBounds(validLimits()) // 40 jobs, 600 s
	before := new(snapshot)
	for i, step := range []struct {
		pending int64
		age     time.Duration
		full    bool
		slow    bool
	}{
		{39, 599 * time.Second, false, false},
		{40, 600 * time.Second, true, true},
		{36, 540 * time.Second, true, true},
		{35, 539 * time.Second, false, false},
		{39, 599 * time.Second, false, false},
		{41, 0, true, false},
	} {
		s := &snapshot{Sample: Sample{Pending: step.pending, OldestAge: step.age, AgeKnown: true}}
		s.applyThresholds(b, before)
		if s.full[plain] != step.full || s.slow[plain] != step.slow {
			t.Errorf("step %d: full %v, slow %v, want %v, %v", i, s.full[plain], s.slow[plain], step.full, step.slow)
		}
		before = s
	}
}

func TestJitteredWait(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		wait   time.Duration
		jitter float64
		want   time.Duration
	}{
		"no jitter":             {30 * time.Second, 0, 30 * time.Second},
		"most jitter":           {30 * time.Second, 1, 36 * time.Second},
		"jitter on the longest": {600 * time.Second, 0.5, 660 * time.Second},
		"rounded up":            {30*time.Second + 1, 0, 31 * time.Second},
		"jitter rounded up":     {30 * time.Second, 0.01, 31 * time.Second},
		"never below a second":  {time.Millisecond, 0, time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := jittered(tc.wait, tc.jitter); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}
