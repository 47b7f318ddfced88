package backpressure

import (
	"maps"
	"sync"
	"time"
)

// maxTurns bounds the memory for callers that wait for their turn.
const maxTurns = 1 << 16

// turns gives those that a full queue turned away a time each at which to come
// back: who are told the same come together, and find room for the first of them.
// The zero value is ready.
type turns struct {
	mu   sync.Mutex
	of   map[string]time.Time // of callers, that of the newest turn each
	last time.Time            // the latest given
}

// take returns how long a caller is to wait: as long as it must anyway, then until
// apart after the turn given last, but not longer than longest for others' sake. A
// caller that comes before its turn keeps it, so nobody gets several.
func (t *turns) take(caller string, now time.Time, must, apart, longest time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if turn, ok := t.of[caller]; ok && turn.After(now) {
		return max(must, turn.Sub(now))
	}
	turn := now.Add(must)
	if next := t.last.Add(apart); next.After(turn) {
		turn = next
	}
	if turn.Sub(now) > max(must, longest) || len(t.of) >= maxTurns {
		return max(must, longest)
	}
	if t.of == nil {
		t.of = make(map[string]time.Time)
	}
	t.of[caller], t.last = turn, turn
	return turn.Sub(now)
}

// forget drops the turns that are over.
func (t *turns) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.of, func(_ string, turn time.Time) bool { return !turn.After(now) })
}
