package authz

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// A gate guards nothing if it let so many requests that could start a job pass unguarded,
// over so long a time, and has guarded none since its start.
const (
	nothingRequests = 100
	nothingTime     = 5 * time.Minute
)

// coverage notices a gate that guards nothing: Envoy asks about an API under /api/run,
// for example, and names no policy, so every request passes.
//
// A single guarded request shows that routes and gate fit together. Until one comes,
// coverage counts requests that could start a job, and no others. There must be no alarm
// about requests that rightly pass:
//   - Health checks use GET, HEAD or OPTIONS. These methods don't count.
//   - Scanners send paths such as //x.php day and night, and envoy.yaml asks about every
//     path that is not plain. A gate that nobody has sent a job yet is asked about no
//     others. So a path must be plain to count.
//   - A new gate has seen few requests, and a burst may come from one client. So there
//     must be many requests, over minutes.
//
// The zero value is ready.
type coverage struct {
	guarded atomic.Bool // ever

	mu          sync.Mutex
	passed      int       // requests that could start a job
	first, last time.Time // when they came
}

// note enters a decided request. It returns true once: for the request after which the
// gate is known to guard nothing.
func (c *coverage) note(r envoy.Request, guarded bool, now time.Time) (isNew bool) {
	switch {
	case c.guarded.Load():
		return false
	case guarded:
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
	path, _ := policy.PathOnly(r.Path) // one that is too long is guarded
	return isNormal(path) && !strings.ContainsAny(path, "%;")
}
