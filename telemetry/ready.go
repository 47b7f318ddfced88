package telemetry

import (
	"maps"
	"slices"
	"sync"
)

// Readiness collects the reasons why the process is not ready. The zero value
// is ready.
type Readiness struct {
	mu      sync.Mutex
	reasons map[string]string
}

// Block makes the process not ready until what is cleared; reason says why.
func (r *Readiness) Block(what, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons == nil {
		r.reasons = make(map[string]string)
	}
	r.reasons[what] = reason
}

// Clear takes a reason away.
func (r *Readiness) Clear(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reasons, what)
}

// Reasons returns why the process is not ready, sorted; empty if it is.
func (r *Readiness) Reasons() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	reasons := make([]string, 0, len(r.reasons))
	for _, what := range slices.Sorted(maps.Keys(r.reasons)) {
		reasons = append(reasons, what+": "+r.reasons[what])
	}
	return reasons
}
