package backpressure

import (
	"sync/atomic"
	"time"
)

// A queue that never had a job or a worker counts as unused once this many requests have
// been let through, over at least this long.
const (
	unusedRequests = 20
	unusedAfter    = 5 * time.Minute
)

// usage finds out that nobody uses the queue: requests are let through for minutes,
// and yet no job and no worker was ever seen. Its name is mistyped then, or the
// application keeps the queue under other keys. The zero value is ready.
type usage struct {
	seen   atomic.Bool  // a job or a worker was seen
	first  atomic.Int64 // ms since the epoch: the first request let through; 0: none
	count  atomic.Int64
	unused atomic.Bool
}

// admitted notes that a request was let through.
func (u *usage) admitted(now time.Time) {
	if u.seen.Load() || u.unused.Load() {
		return
	}
	u.first.CompareAndSwap(0, now.UnixMilli())
	if u.count.Add(1) >= unusedRequests && now.Sub(time.UnixMilli(u.first.Load())) >= unusedAfter {
		u.unused.Store(true)
	}
}

// observe takes the newest sample into account.
func (u *usage) observe(s Sample) {
	if s.Pending > 0 || s.Running > 0 || s.Workers > 0 {
		u.seen.Store(true)
		u.unused.Store(false)
	}
}
