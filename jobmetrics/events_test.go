package jobmetrics

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	s := newEvents()
	s.add("a", event{job.Active, 1})
	s.add("a", event{job.Active, 2}) // progress
	s.add("b", event{job.Active, 3})
	s.add("a", event{job.Complete, 4})
	s.add("c", event{job.Failed, 5})

	ids, taken := s.takeFirst(2)
	if !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("first %q, want a and b", ids)
	}
	wantEvents(t, taken, map[string][]event{
		"a": {{job.Active, 1}, {job.Complete, 4}},
		"b": {{job.Active, 3}},
	})
	s.add("b", event{job.Queued, 6})
	s.restore(ids, taken)
	if ids, _ = s.takeFirst(1); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("put back %q, want a before all others", ids)
	}
	s.restore(ids, map[string][]event{"a": taken["a"]})
	wantEvents(t, s.take([]string{"b", "unknown"}), map[string][]event{"b": {{job.Active, 3}, {job.Queued, 6}}})

	s.add("c", event{job.Queued, 7})
	s.add("d", event{job.Active, 4})
	s.forget(time.UnixMicro(6))
	wantEvents(t, all(s), map[string][]event{"c": {{job.Queued, 7}}})
	wantEvents(t, all(s), map[string][]event{})
}

// TestEventsIsBounded: beyond the bound the oldest are dropped, and known to be missed.
func TestEventsIsBounded(t *testing.T) {
	t.Parallel()
	s := newEvents()
	for i := range maxJobs {
		s.add(fmt.Sprint(i), event{job.Active, 1})
	}
	if s.takeGap() {
		t.Error("missed something within the bound")
	}
	s.add("one more", event{job.Active, 2})
	if !s.takeGap() || s.takeGap() {
		t.Error("a dropped event must be known to be missed, once")
	}
	if ids, _ := s.takeFirst(1); !slices.Equal(ids, []string{"1"}) || len(s.byJob) != maxJobs-1 {
		t.Errorf("%d jobs left, want %d, and the first dropped", len(s.byJob), maxJobs-1)
	}
}

func all(s *events) map[string][]event {
	_, events := s.takeFirst(10)
	return events
}

func wantEvents(t *testing.T, got, want map[string][]event) {
	t.Helper()
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("events %v, want %v", got, want)
	}
}
