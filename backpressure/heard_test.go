package backpressure

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

func TestHeard(t *testing.T) {
	t.Parallel()
	h := newHeard()
	h.add("a", word{statusActive, 1})
	h.add("a", word{statusActive, 2}) // progress
	h.add("b", word{statusActive, 3})
	h.add("a", word{statusComplete, 4})
	h.add("c", word{statusFailed, 5})

	ids, taken := h.first(2)
	if !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("first %q, want a and b", ids)
	}
	wantWords(t, taken, map[string][]word{
		"a": {{statusActive, 1}, {statusComplete, 4}},
		"b": {{statusActive, 3}},
	})
	h.add("b", word{statusQueued, 6})
	h.restore(ids, taken)
	if ids, _ = h.first(1); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("put back %q, want a before all others", ids)
	}
	h.restore(ids, map[string][]word{"a": taken["a"]})
	wantWords(t, h.of([]string{"b", "unheard of"}), map[string][]word{"b": {{statusActive, 3}, {statusQueued, 6}}})

	h.add("c", word{statusQueued, 7})
	h.add("d", word{statusActive, 4})
	h.forget(time.UnixMicro(6))
	wantWords(t, all(h), map[string][]word{"c": {{statusQueued, 7}}})
	wantWords(t, all(h), map[string][]word{})
}

// TestHeardIsBounded: beyond the bound the oldest are dropped, and known to be missed.
func TestHeardIsBounded(t *testing.T) {
	t.Parallel()
	h := newHeard()
	for i := range maxHeard {
		h.add(fmt.Sprint(i), word{statusActive, 1})
	}
	if h.takeMissed() {
		t.Error("missed something within the bound")
	}
	h.add("one more", word{statusActive, 2})
	if !h.takeMissed() || h.takeMissed() {
		t.Error("a dropped word must be known to be missed, once")
	}
	if ids, _ := h.first(1); !slices.Equal(ids, []string{"1"}) || len(h.words) != maxHeard-1 {
		t.Errorf("%d jobs left, want %d, and the first dropped", len(h.words), maxHeard-1)
	}
}

func all(h *heard) map[string][]word {
	_, words := h.first(10)
	return words
}

func wantWords(t *testing.T, got, want map[string][]word) {
	t.Helper()
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("words %v, want %v", got, want)
	}
}
