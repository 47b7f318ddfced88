package backpressure

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func full(pending int64) func(context.Context) (Admission, error) {
	return func(context.Context) (Admission, error) { return Admission{Pending: pending}, nil }
}

// TestAdmitWaitsForRoom: 99,961 jobs have to go at 1000/s, so a little more than 100 s with
// what is added for certainty; with a fifth on top and rounded up, 121 s at most. A rate
// that is too old does not count.
func TestAdmitWaitsForRoom(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), &fakeQueue{admit: full(100_000)})
	m.newest.Store(&snapshot{at: time.Now(), flow: flow{perSecond: 1000, jobs: 1e9}})
	v := see(m).Admit(t.Context(), Asker{Address: "ann"})
	if wait := v.RetryAfter(); v.State != StateFull || wait < 100*time.Second || wait > 121*time.Second {
		t.Errorf("%s for %s, want full for 100 s and up to a fifth more", v.State, wait)
	}
	m.newest.Store(&snapshot{at: time.Now().Add(-time.Hour), flow: flow{perSecond: 1000, jobs: 1e9}})
	if wait := see(m).Admit(t.Context(), Asker{Address: "bob"}).RetryAfter(); wait < 30*time.Second || wait > 36*time.Second {
		t.Errorf("RetryAfter %s by a stale rate, want 30 s and up to a fifth more", wait)
	}
}

func TestAdmitWithoutLimit(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), new(fakeQueue)) // Admit would panic
	m.SetLimits(Limits{MaxAge: time.Minute})
	if v := see(m).Admit(t.Context(), Asker{Address: "ann"}); v.State != StateOK || v.RetryAfter != nil {
		t.Errorf("state %s, want ok", v.State)
	}
}

func TestAdmitFailure(t *testing.T) {
	t.Parallel()
	f := &fakeQueue{admit: func(context.Context) (Admission, error) { return Admission{}, errors.New("WRONGTYPE") }}
	m := newTestMonitor(validConfig(), f)
	v := see(m).Admit(t.Context(), Asker{Address: "ann"})
	if wait := v.RetryAfter(); v.State != StateUnknown || wait < 30*time.Second || wait > 36*time.Second {
		t.Errorf("%s for %s, want unknown for 30 s and up to a fifth more", v.State, wait)
	}
	wantCounter(t, m.metrics.admitErrors, 1)
	wantCounter(t, m.metrics.sampleErrors, 0)
}

// TestAdmitted: what somebody else has asked of the queue counts as if Admit had asked.
func TestAdmitted(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), new(fakeQueue)) // Admit would panic
	if v := see(m).Admitted(Asker{Address: "ann"}, Admission{Admitted: true}, false); v.State != StateOK || m.admittedHere.Load() != 1 {
		t.Errorf("admitted: %s, %d counted; want ok, 1", v.State, m.admittedHere.Load())
	}
	if v := see(m).Admitted(Asker{Address: "ann"}, Admission{Pending: 40}, false); v.State != StateFull || v.RetryAfter() == 0 {
		t.Errorf("full: %s", v.State)
	}
	if v := see(m).Shed(Asker{Address: "bob"}, true); v.State != StateFull {
		t.Errorf("the next caller: %s, want full without asking", v.State)
	}
	wantCounter(t, m.metrics.admitErrors, 0)
	if v := see(m).Admitted(Asker{Address: "ann"}, Admission{}, true); v.State != StateUnknown || v.RetryAfter() == 0 {
		t.Errorf("not readable: %s", v.State)
	}
	wantCounter(t, m.metrics.admitErrors, 1)
}

// TestAdmitNotAskedRemembersFull: while Redis can't be asked, a queue that was full
// when last seen stays closed until that sample is too old. One that had room is
// unknown, for nobody counts who is let in.
func TestAdmitNotAskedRemembersFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: Sample{Pending: 40, AgeKnown: true}}
		m := newTestMonitor(validConfig(), f)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		want := func(want State) {
			t.Helper()
			if v := see(m).Admit(gone, Asker{Address: "ann"}); v.State != want || v.RetryAfter() == 0 {
				t.Errorf("%s, want %s", v.State, want)
			}
		}
		must(t, m.Sample(t.Context()))
		want(StateFull)
		after(m.cfg.StaleAfter + 1)
		want(StateUnknown)
		f.set(Sample{Pending: 36, AgeKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want(StateFull) // full ends below nine tenths of 40
		f.set(Sample{Pending: 35, AgeKnown: true}, nil)
		must(t, m.Sample(t.Context()))
		want(StateUnknown)
	})
}

// TestAdmitCallerGone: callers that leave don't open the breaker for the others.
func TestAdmitCallerGone(t *testing.T) {
	t.Parallel()
	f := new(fakeQueue)
	m := newTestMonitor(validConfig(), f)
	ok := func(context.Context) (Admission, error) { return Admission{Admitted: true}, nil }
	for range 2 * breakerFailures {
		ctx, cancel := context.WithCancel(t.Context())
		f.admit = func(context.Context) (Admission, error) {
			cancel()
			return Admission{}, errors.New("use of closed connection") // the client blames the connection
		}
		if v := see(m).Admit(ctx, Asker{Address: "ann"}); v.State != StateUnknown {
			t.Errorf("state %s, want unknown", v.State)
		}
		f.admit = nil // a caller that left before is not asked for
		if v := see(m).Admit(ctx, Asker{Address: "ann"}); v.State != StateUnknown {
			t.Errorf("state %s, want unknown", v.State)
		}
		late, cancel := context.WithTimeout(t.Context(), -time.Second)
		see(m).Admit(late, Asker{Address: "ann"})
		cancel()
	}
	f.admit = ok
	if v := see(m).Admit(t.Context(), Asker{Address: "ann"}); v.State != StateOK || m.breaker.Open() {
		t.Errorf("state %s for the next caller, want ok", v.State)
	}
	wantCounter(t, m.metrics.admitErrors, 0)
}

// TestAdmitLeavesTheProbeToSamples: no request is the one to find out whether Redis
// is back.
func TestAdmitLeavesTheProbeToSamples(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newTestMonitor(validConfig(), &fakeQueue{err: errors.New("connection refused")}) // Admit would panic
		for range breakerFailures {
			if m.breaker.Open() {
				t.Fatal("breaker open too early")
			}
			if err := m.Sample(t.Context()); err == nil {
				t.Fatal("no error of a failed sample")
			}
		}
		for _, pause := range []time.Duration{0, 2 * breakerTimeout} {
			after(pause)
			if v := see(m).Admit(t.Context(), Asker{Address: "ann"}); v.State != StateUnknown {
				t.Errorf("state %s, want unknown", v.State)
			}
		}
	})
}
