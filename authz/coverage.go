package authz

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// The gate is said to guard nothing once so many requests that could start a job were
// not guarded, over so long a time, and none was guarded since the start.
const (
	nothingRequests = 100
	nothingTime     = 5 * time.Minute
)

// coverage notices a gate that guards nothing of what it is asked: Envoy asks about an
// API under /api/run, say, and names no policy, so every request passes.
//
// One request that is guarded shows that routes and gate fit. Until there is one, only
// requests that could start a job count, so that a gate is not accused for what it is
// right to let pass:
//   - Their method is none of GET, HEAD and OPTIONS, which is what health checks send.
//   - Their path is plain. envoy.yaml asks about every path that is not, scanners send
//     such paths day and night, and a gate to which nobody has sent a job sees no other.
//   - They are many, for a gate may be new, and come over minutes, for a burst may be one
//     client's.
//
// The zero value is ready.
type coverage struct {
	guarded atomic.Bool // ever

	mu          sync.Mutex
	passed      int       // requests that could start a job
	first, last time.Time // when they came
}

// note enters a request that was decided. It returns true for the one by which the gate
// has come to guard nothing.
func (c *coverage) note(r envoy.Request, p Policy, now time.Time) (isNew bool) {
	switch {
	case c.guarded.Load():
		return false
	case p != PolicyNone:
		c.guarded.Store(true)
		return false
	case !couldStartJob(r):
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.nothing()
	if c.passed == 0 {
		c.first = now
	}
	c.passed++
	c.last = now
	return !before && c.nothing()
}

// guardsNothing may be called by any number at once.
func (c *coverage) guardsNothing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nothing()
}

func (c *coverage) nothing() bool {
	return !c.guarded.Load() && c.passed >= nothingRequests && c.last.Sub(c.first) >= nothingTime
}

func couldStartJob(r envoy.Request) bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS":
		return false
	}
	path, _ := pathOnly(r.Path) // one that is too long is guarded
	return isNormal(path) && !strings.ContainsAny(path, "%;")
}
