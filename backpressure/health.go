package backpressure

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// health turns outcomes into one log line for each change.
type health struct {
	log   *slog.Logger
	what  string
	quiet time.Duration // without a failure, until a success counts as recovery

	failing  atomic.Bool // written under mu; spares the lock while all is well
	mu       sync.Mutex
	lastFail time.Time
}

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastFail = time.Now()
	if !h.failing.Swap(true) {
		h.log.Warn(h.what+" fails", "error", err)
	}
}

func (h *health) succeeded() {
	if !h.failing.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.lastFail) >= h.quiet && h.failing.Swap(false) {
		h.log.Info(h.what + " works again")
	}
}
