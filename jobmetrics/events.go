package jobmetrics

import (
	"slices"
	"sync"
	"time"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

const (
	// maxJobs bounds the jobs of which events are kept.
	maxJobs = 1 << 16
	// keepEvents is how long a replica that does not count keeps events.
	keepEvents = 30 * time.Second
)

// events keeps the status events until they are counted. Each replica keeps them,
// so that one that takes over knows the newest. It is safe for concurrent use.
type events struct {
	arrived chan struct{} // has an element when there is something new

	mu    sync.Mutex
	byJob map[string][]event
	order []string // the ids in byJob, those with the oldest first event first
	gap   bool     // an event may have been missed
}

func newEvents() *events {
	return &events{arrived: make(chan struct{}, 1), byJob: make(map[string][]event)}
}

func (s *events) add(id string, e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, known := s.byJob[id]
	// A job that reports progress publishes the same status again and again.
	if n := len(list); n > 0 && list[n-1].status == e.status {
		return
	}
	if !known {
		s.order = append(s.order, id)
		if len(s.order) > maxJobs {
			delete(s.byJob, s.order[0])
			s.order = s.order[1:]
			s.gap = true
		}
	}
	s.byJob[id] = append(list, e)
	s.notify()
}

func (s *events) notify() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// notifyIfAny announces events that are still there.
func (s *events) notifyIfAny() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) > 0 {
		s.notify()
	}
}

// takeFirst removes the first n jobs, in their order, and returns them with their events.
func (s *events) takeFirst(n int) ([]string, map[string][]event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Clone(s.order[:min(n, len(s.order))])
	return ids, s.remove(ids)
}

// take removes the events of these jobs and returns them.
func (s *events) take(ids []string) map[string][]event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(ids)
}

func (s *events) remove(ids []string) map[string][]event {
	taken := make(map[string][]event, len(ids))
	for _, id := range ids {
		if list, ok := s.byJob[id]; ok {
			taken[id] = list
			delete(s.byJob, id)
		}
	}
	if len(taken) > 0 {
		s.order = slices.DeleteFunc(slices.Clone(s.order), func(id string) bool { _, gone := taken[id]; return gone })
	}
	return taken
}

// restore puts the events of these jobs back, before all others and in their order:
// they could not be counted, or more may be to come.
func (s *events) restore(ids []string, taken map[string][]event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var front []string
	for _, id := range ids {
		list, ok := taken[id]
		if !ok {
			continue
		}
		if _, known := s.byJob[id]; !known {
			front = append(front, id)
		}
		s.byJob[id] = append(slices.Clone(list), s.byJob[id]...)
	}
	s.order = append(front, s.order...)
}

// forget drops the events that arrived before then.
func (s *events) forget(then time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = slices.DeleteFunc(s.order, func(id string) bool {
		list := slices.DeleteFunc(s.byJob[id], func(e event) bool { return e.at < then.UnixMicro() })
		s.byJob[id] = list
		if len(list) == 0 {
			delete(s.byJob, id)
		}
		return len(list) == 0
	})
}

// markGap notes that an event may have been missed.
func (s *events) markGap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap = true
}

// takeGap reports whether an event may have been missed since the last call.
func (s *events) takeGap() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	gap := s.gap
	s.gap = false
	return gap
}

// deliver is add for an event that arrives now.
func (s *events) deliver(e job.Event) {
	if e.Status.Known() {
		s.add(e.ID, event{status: e.Status, at: time.Now().UnixMicro()})
	}
}
