package backpressure

import (
	"fmt"
	"testing"
	"time"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	const must, apart, longest = 30 * time.Second, 10 * time.Second, time.Minute
	start := time.Now()
	var slots slots
	for i, step := range []struct {
		second float64
		caller string
		want   float64
	}{
		{0, "a", 30},
		{0, "b", 40},
		{0, "c", 50},
		{5, "b", 35},   // too early: keeps its slot
		{5, "b", 35},   // however often
		{20, "b", 30},  // too early, but the queue is what it is
		{31, "a", 30},  // came back and found no room: 61
		{41, "b", 30},  // likewise: 71
		{41, "d", 40},  // 81
		{41, "e", 50},  // 91
		{41, "f", 60},  // 101
		{41, "g", 60},  // no slot: as long as the longest
		{41, "h", 60},  // likewise
		{200, "i", 30}, // nobody waits any more
	} {
		now := start.Add(time.Duration(step.second * float64(time.Second)))
		if got := slots.take(step.caller, now, must, apart, longest); got.Seconds() != step.want {
			t.Errorf("step %d: %s is to wait %s, want %v s", i, step.caller, got, step.want)
		}
	}
}

func TestSlotsAreForgotten(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var slots slots
	for i := range maxSlots + 100 {
		slots.take(fmt.Sprint(i), now, time.Second, 0, time.Minute)
	}
	if n := len(slots.byCaller); n != maxSlots {
		t.Errorf("%d slots kept, want %d", n, maxSlots)
	}
	slots.forget(now.Add(time.Second))
	if n := len(slots.byCaller); n != 0 {
		t.Errorf("%d slots kept that are over", n)
	}
}

// TestSlot: the rate at which slots are given, and to whom.
func TestSlot(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), new(fakeQueue))
	slot := func(caller string) time.Duration {
		return m.retrySlot(caller, 30*time.Second).Round(time.Second)
	}
	if a, b := slot("a"), slot("b"); a != 30*time.Second || b != a {
		t.Errorf("%s and %s while no rate is known, want 30 s", a, b)
	}
	// Two jobs leave each second. There is a slot for every second one, and a quarter of
	// these are this gate's.
	m.newest.Store(&snapshot{at: time.Now(), flow: flow{perSecond: 2, jobs: 10, share: 0.25}})
	if a, b := slot("a"), slot("b"); a != 30*time.Second || b != 34*time.Second {
		t.Errorf("%s and %s, want 30 and 34 s", a, b)
	}
	if again := slot("b"); again != 34*time.Second {
		t.Errorf("%s for the same caller, want 34 s", again)
	}
}

// TestSlotIsForCallersThatAreTold: a verdict that no client hears of takes no slot from
// others, and neither does one of another state than full.
func TestSlotIsForCallersThatAreTold(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), new(fakeQueue))
	m.newest.Store(&snapshot{at: time.Now(), flow: flow{perSecond: 0.01, jobs: 10, share: 1}})
	for _, state := range []State{StateSlow, StateUnknown} {
		if wait := m.verdict("a", state, 30*time.Second).RetryAfter(); wait > 36*time.Second {
			t.Errorf("%s: %s, want no slot", state, wait)
		}
	}
	untold, first, second := m.verdict("b", StateFull, 30*time.Second), m.verdict("c", StateFull, 30*time.Second), m.verdict("d", StateFull, 30*time.Second)
	if wait := first.RetryAfter(); wait > 36*time.Second {
		t.Errorf("the first to be told waits %s, want 30 s and up to a fifth more", wait)
	}
	if wait := second.RetryAfter(); wait < 200*time.Second {
		t.Errorf("the second waits %s, want 200 s after the first", wait)
	}
	if n := len(m.slots.byCaller); n != 2 {
		t.Errorf("%d slots given, want 2; %s was not told", n, untold.State)
	}
}

// TestSampleForgetsSlots: slots that are over make room for others.
func TestSampleForgetsSlots(t *testing.T) {
	t.Parallel()
	m := newTestMonitor(validConfig(), new(fakeQueue))
	now := time.Now()
	m.slots.take("over", now.Add(-time.Minute), time.Second, 0, time.Minute)
	m.slots.take("to come", now, time.Minute, 0, time.Minute)
	must(t, m.Sample(t.Context()))
	if n := len(m.slots.byCaller); n != 1 {
		t.Errorf("%d slots kept, want the one to come", n)
	}
}
