package backpressure

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestLimitsOfClasses: what callers with and without the reserved places see.
func TestLimitsOfClasses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limits                   Limits
		plain, full, fullOfOther int
	}{
		{Limits{MaxPending: 40}, 40, 40, 40},
		{Limits{MaxPending: 40, Reserve: 0.2}, 32, 32, 40},
		{Limits{MaxPending: 10, Reserve: 0.9}, 1, 1, 10},
		{Limits{MaxPending: 10, Reserve: 0.3}, 7, 7, 10},
		{Limits{MaxPending: 11, Reserve: 0.5}, 5, 5, 11},   // the reserve is rounded up
		{Limits{MaxPending: 10, Reserve: 0.001}, 9, 9, 10}, // and at least one place
		{Limits{MaxPending: 10, Reserve: 0.999}, 1, 1, 10}, // but one is for the others
		{Limits{MaxPending: 10, Reserve: 1e-300}, 9, 9, 10},
		{Limits{MaxPending: 1, Reserve: 0.5}, 1, 1, 1},
		{Limits{Reserve: 0.5}, 0, 0, 0},
		{Limits{MaxPending: 40, FairShare: 1}, 40, 39, 39},
		{Limits{MaxPending: 40, FairShare: 0.5}, 40, 38, 38},
		{Limits{MaxPending: 40, FairShare: 0.1}, 40, 30, 30},
		{Limits{MaxPending: 40, FairShare: 8}, 40, 39, 39},
		{Limits{MaxPending: 40, FairShare: 0.01}, 40, 1, 1},
		{Limits{MaxPending: 40, Reserve: 0.2, FairShare: 1}, 32, 31, 39},
		{Limits{FairShare: 1}, 0, 0, 0},
	} {
		b := newBounds(c.limits)
		of, other := b.seen(Asker{}), b.seen(Asker{Reserved: true})
		if of.pending != c.plain || of.full != c.full || other.full != c.fullOfOther {
			t.Errorf("%+v: threshold %d, full at %d, full for others at %d; want %d, %d, %d", c.limits, of.pending, of.full, other.full, c.plain, c.full, c.fullOfOther)
		}
		if (of.class == other.class) != (c.limits.Reserve == 0) {
			t.Errorf("%+v: classes %d and %d", c.limits, of.class, other.class)
		}
	}
	if got := newBounds(Limits{MaxAge: 10 * time.Minute, Reserve: 0.2}).of[plain].age; got != 8*time.Minute {
		t.Errorf("age %v of 10m with a reserve of a fifth, want 8m", got)
	}
}

// TestPlace: what a caller asks of the queue.
func TestPlace(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), nil)
	ask := func(l Limits, a Asker) Place {
		m.SetLimits(l)
		return see(m).Place(a)
	}
	ann := Asker{Address: "ip:1", Sharer: "jwt:ann"}
	for i, c := range []struct{ got, want Place }{
		{ask(Limits{MaxPending: 40}, ann), Place{Limit: 40}},
		{ask(Limits{MaxPending: 40, Reserve: 0.2}, ann), Place{Limit: 32}},
		{ask(Limits{MaxPending: 40, Reserve: 0.2, FairShare: 1}, ann), Place{Limit: 32, Share: 1, Caller: "jwt:ann"}},
		{ask(Limits{MaxPending: 40, Reserve: 0.2, FairShare: 1}, Asker{Sharer: "ip:1", Reserved: true}), Place{Limit: 40, Share: 1, Caller: "ip:1"}},
		{ask(Limits{MaxAge: time.Minute, FairShare: 1}, ann), Place{}},
	} {
		if c.got != c.want {
			t.Errorf("case %d: %+v, want %+v", i, c.got, c.want)
		}
	}
}

// TestReserve: a sample sheds callers without the reserved places first, by depth and by age, and each class has its own
// hysteresis.
func TestReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeQueue)
		m := newTestMonitor(validConfig(), f)
		m.SetLimits(Limits{MaxPending: 40, MaxAge: 10 * time.Minute, Reserve: 0.2})
		for i, step := range []struct {
			pending    int64
			age        time.Duration
			plain, top State
		}{
			{31, time.Minute, StateOK, StateOK},
			{32, time.Minute, StateFull, StateOK},
			{29, time.Minute, StateFull, StateOK}, // ends below nine tenths of 32
			{28, time.Minute, StateOK, StateOK},
			{40, time.Minute, StateFull, StateFull},
			{36, time.Minute, StateFull, StateFull},
			{35, time.Minute, StateFull, StateOK},
			{10, 8 * time.Minute, StateSlow, StateOK},
			{10, 10 * time.Minute, StateSlow, StateSlow},
			{10, 9*time.Minute - 1, StateSlow, StateOK},
			{10, 432*time.Second - 1, StateOK, StateOK},
		} {
			f.set(Sample{Pending: step.pending, OldestAge: step.age, AgeKnown: true}, nil)
			must(t, m.Sample(t.Context()))
			got := [2]State{see(m).Shed(Asker{}, false).State, see(m).Shed(Asker{Reserved: true}, false).State}
			if got != [2]State{step.plain, step.top} || m.State() != step.plain {
				t.Errorf("step %d: %v and %s, want %s and %s", i, got, m.State(), step.plain, step.top)
			}
			if gone, want := m.optional().reserveUsedUp, step.top != StateOK; (gone == 1) != want {
				t.Errorf("step %d: reserve used up %v, want %v", i, gone, want)
			}
		}
	})
}

// TestRefusalsOfClasses: that one class was refused just now says nothing to the other.
func TestRefusalsOfClasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: Sample{Pending: 10, AgeKnown: true}}
		m := newTestMonitor(validConfig(), f)
		m.SetLimits(Limits{MaxPending: 40, Reserve: 0.2, FairShare: 1})
		must(t, m.Sample(t.Context()))
		of, top := Asker{}, Asker{Reserved: true}
		shed := func() [2]State { return [2]State{see(m).Shed(of, true).State, see(m).Shed(top, true).State} }
		see(m).Admitted(of, Admission{Pending: 33}, false)
		if got := shed(); got != [2]State{StateFull, StateOK} {
			t.Errorf("after a refusal without reserved places: %v", got)
		}
		see(m).Admitted(top, Admission{Admitted: true}, false)
		if got := shed(); got != [2]State{StateFull, StateOK} {
			t.Errorf("after an admission to a reserved place: %v", got)
		}
		see(m).Admitted(of, Admission{Admitted: true}, false)
		see(m).Admitted(top, Admission{Pending: 40}, false)
		if got := shed(); got != [2]State{StateOK, StateFull} {
			t.Errorf("after a refusal of a reserved place: %v", got)
		}
		after(2 * justNow)
		for range 3 {
			see(m).Admitted(of, Admission{OverShare: true, Pending: 3}, false)
		}
		if got := shed(); got != [2]State{StateOK, StateOK} {
			t.Errorf("after a caller had its share: %v", got)
		}
	})
}

// TestShareWait: a caller that has its share comes back when one of its jobs has left, and has no retry slot.
func TestShareWait(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), nil)
	m.SetLimits(Limits{MaxPending: 40, FairShare: 1})
	m.newest.Store(&snapshot{at: time.Now(), flow: flow{perSecond: 0.1, jobs: 1e9, share: 1}})
	want := (5 + confidence*math.Sqrt(5)) / 0.1
	for range 3 {
		v := see(m).Admitted(Asker{Address: "ip:1"}, Admission{OverShare: true, Pending: 5}, false)
		wait := v.RetryAfter().Seconds()
		if v.State != StateShare || wait < want || wait > want*(1+maxJitter)+1 {
			t.Errorf("%s for %v s, want share for %v s and up to a fifth more", v.State, wait, want)
		}
	}
	if len(m.slots.byCaller) != 0 {
		t.Error("a retry slot was given")
	}
}

// TestSetLimits: other limits hold for the sample that is there already. The drain rate stays.
func TestSetLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeQueue{r: Sample{Pending: 37, AgeKnown: true}}
		m := newTestMonitor(validConfig(), f)
		must(t, m.Sample(t.Context()))
		after(time.Second)
		f.set(Sample{Pending: 37, AgeKnown: true, Left: 5, LeftExact: true}, nil)
		must(t, m.Sample(t.Context()))
		wantState(t, m, StateOK)
		see(m).Admitted(Asker{}, Admission{Pending: 40}, false)
		for _, step := range []struct {
			limits Limits
			want   State
		}{
			{Limits{MaxPending: 30}, StateFull},
			{Limits{MaxPending: 40}, StateFull}, // it was full
			{Limits{MaxPending: 100}, StateOK},
			{Limits{MaxPending: 40}, StateOK},
			{Limits{MaxPending: 40, Reserve: 0.2}, StateFull},
			{Limits{}, StateOK},
		} {
			m.SetLimits(step.limits)
			wantState(t, m, step.want)
			wantGauge(t, m.metrics.state[step.want], 1)
			wantGauge(t, m.metrics.limitPending, float64(newBounds(step.limits).of[plain].full))
			if got := see(m).Shed(Asker{}, true).State; got != step.want {
				t.Errorf("%+v: a request that adds a job finds %s, want %s", step.limits, got, step.want)
			}
			if rate := m.flow(time.Now()).perSecond; rate != 5 {
				t.Errorf("drain rate %v, want 5", rate)
			}
		}
	})
}

// TestView: requests are judged by the limits of their view, whatever the monitor's are at that moment. What a view with
// a lower limit was refused says nothing to one with a higher limit.
func TestView(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newTestMonitor(validConfig(), &fakeQueue{r: Sample{Pending: 50, AgeKnown: true}})
		must(t, m.Sample(t.Context()))
		low, high := m.View(Limits{MaxPending: 10}), m.View(Limits{MaxPending: 100})
		check := func(when string) {
			t.Helper()
			for range 3 {
				if got := low.Shed(Asker{}, false).State; got != StateFull {
					t.Errorf("%s: the low limit is %s", when, got)
				}
				if got := high.Shed(Asker{}, true).State; got != StateOK {
					t.Errorf("%s: the high limit is %s", when, got)
				}
				if low.Place(Asker{}).Limit != 10 || high.Place(Asker{}).Limit != 100 {
					t.Errorf("%s: the places have other limits", when)
				}
				low.Admitted(Asker{}, Admission{Pending: 50}, false) // refused, and remembered
			}
		}
		check("before")
		for _, l := range []Limits{{MaxPending: 10}, {MaxPending: 100}, {}, {MaxPending: 10}} {
			m.SetLimits(l)
			check(fmt.Sprintf("with the monitor at %d", l.MaxPending))
		}
	})
}

// TestSetLimitsDoesNotWait: limits can be changed while a sample waits for Redis.
func TestSetLimitsDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &hangingQueue{}
		m := newTestMonitor(validConfig(), f)
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = m.Sample(ctx) }()
		synctest.Wait()
		begin := time.Now()
		m.SetLimits(Limits{MaxPending: 7})
		if took := time.Since(begin); took > 0 {
			t.Errorf("waited for %v", took)
		}
		wantGauge(t, m.metrics.limitPending, 7)
		stop()
		synctest.Wait()
	})
}

// hangingQueue answers nothing.
type hangingQueue struct{ fakeQueue }

func (*hangingQueue) Sample(ctx context.Context, _ Cursor, _ bool) (Sample, error) {
	<-ctx.Done()
	return Sample{}, ctx.Err()
}

func TestMayHold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		share   float64
		pending int64
		want    int
	}{{1, 0, 40}, {1, 20, 20}, {1, 40, 0}, {1, 50, 0}, {0.5, 10, 15}, {0.29, 0, 11}} {
		if got := (Limits{MaxPending: 40, FairShare: c.share}).Place(Asker{}).MayHold(c.pending); got != c.want {
			t.Errorf("%s: %d, want %d", fmt.Sprint(c), got, c.want)
		}
	}
}

// see is the queue as requests see it by the limits that the monitor has.
func see(m *Monitor) View { return View{m, m.inForce.Load()} }
