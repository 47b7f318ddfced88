// Package condition logs that something begins to fail, and that it works again,
// once each. Another error of something that still fails is logged too, but not often.
package condition

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Condition is the state of one thing that can fail. It works at first. It is safe
// for concurrent use.
type Condition struct {
	log           *slog.Logger
	failed, works string
	quiet         time.Duration

	failing  atomic.Bool // written under mu; spares the lock while all is well
	mu       sync.Mutex
	lastFail time.Time
	reason   string // of the newest failure that was logged
	logged   time.Time
}

// repeat is the shortest time between two errors of one failure that are logged.
const repeat = 10 * time.Second

// New returns a condition that logs failed as a warning, with the error, and works
// as information.
func New(log *slog.Logger, failed, works string) *Condition {
	return &Condition{log: log, failed: failed, works: works}
}

// Quiet sets for how long nothing must fail until a success counts: for something
// that fails now and then under load. It returns c.
func (c *Condition) Quiet(d time.Duration) *Condition {
	c.quiet = d
	return c
}

// Fail notes a failure. The first one is logged with args, and so is a later one with
// another error.
func (c *Condition) Fail(err error, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.lastFail = now
	if c.failing.Swap(true) && (err.Error() == c.reason || now.Sub(c.logged) < repeat) {
		return
	}
	c.reason, c.logged = err.Error(), now
	c.log.Warn(c.failed, append([]any{"error", err}, args...)...)
}

// Succeed notes a success. The first one after a failure is logged.
func (c *Condition) Succeed() {
	if !c.failing.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.lastFail) >= c.quiet && c.failing.Swap(false) {
		c.log.Info(c.works)
	}
}
