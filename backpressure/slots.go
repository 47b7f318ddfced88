package backpressure

import (
	"maps"
	"sync"
	"time"
)

// maxSlots bounds the memory for callers that wait for their slot.
const maxSlots = 1 << 16

// slots gives each caller that a full queue turned away a time of its own at which
// to come back. Callers that are all told the same time come back together, and
// only the first of them find room. The zero value is ready.
type slots struct {
	mu       sync.Mutex
	byCaller map[string]time.Time
	last     time.Time // the latest slot given
}

// take returns how long a caller is to wait. The wait is at least atLeast. A new slot is
// at least apart after the slot before. The slots of others do not push a wait beyond
// longest. A caller that asks again before its slot keeps it, so no caller has two.
func (s *slots) take(caller string, now time.Time, atLeast, apart, longest time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot, ok := s.byCaller[caller]; ok && slot.After(now) {
		return max(atLeast, slot.Sub(now))
	}
	slot := now.Add(atLeast)
	if next := s.last.Add(apart); next.After(slot) {
		slot = next
	}
	if slot.Sub(now) > max(atLeast, longest) || len(s.byCaller) >= maxSlots {
		return max(atLeast, longest)
	}
	if s.byCaller == nil {
		s.byCaller = make(map[string]time.Time)
	}
	s.byCaller[caller], s.last = slot, slot
	return slot.Sub(now)
}

// forget drops the slots that are over.
func (s *slots) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.byCaller, func(_ string, slot time.Time) bool { return !slot.After(now) })
}
