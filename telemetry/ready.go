package telemetry

import (
	"maps"
	"slices"
	"sync"
)

// Readiness holds the reasons why the process is not ready. With the zero value it is
// ready.
type Readiness struct {
	mu      sync.Mutex
	reasons map[string]string
}

// Block makes the process not ready until Clear(what). reason says why: "Redis is
// awaited", for example.
func (r *Readiness) Block(what, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons == nil {
		r.reasons = make(map[string]string)
	}
	r.reasons[what] = reason
}

// Clear removes the reason that Block(what) gave.
func (r *Readiness) Clear(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reasons, what)
}

// Reason is a reason why the process is not ready, as Block has it.
type Reason struct{ What, Why string }

// String returns both.
func (r Reason) String() string { return r.What + ": " + r.Why }

// Reasons returns the reasons why the process is not ready, sorted. There are none if it
// is ready.
func (r *Readiness) Reasons() []Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	reasons := make([]Reason, 0, len(r.reasons))
	for _, what := range slices.Sorted(maps.Keys(r.reasons)) {
		reasons = append(reasons, Reason{what, r.reasons[what]})
	}
	return reasons
}
