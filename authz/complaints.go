package authz

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// guard runs one part of a Check and returns whether the part came to its end. A panic
// ends that part alone and is logged with its stack.
func (s *Server) guard(ctx context.Context, doing string, part func()) (done bool) {
	defer func() {
		if p := recover(); p != nil {
			s.reportPanic(ctx, doing, p)
		}
	}()
	part()
	return true
}

// reportPanic logs a panic. The function that recovers the panic must call it directly.
func (s *Server) reportPanic(ctx context.Context, doing string, p any) {
	defer func() { _ = recover() }() // the logger may be what panics
	// Panics from different places are complaints of different kinds: each has its stack.
	const callers = 3 // runtime.Callers, reportPanic and the function that recovered
	var place [8]uintptr
	runtime.Callers(callers, place[:])
	s.complain(ctx, place, "panic while "+doing, "panic", p, "stack", string(debug.Stack()))
}

// complain logs an error that every request could cause. Each kind of error is logged
// once a minute. Text from a client must not make a kind: there would be too many.
func (s *Server) complain(ctx context.Context, kind any, msg string, args ...any) {
	if s.complaints.due(kind, time.Now()) {
		s.log.ErrorContext(ctx, msg, args...)
	}
}

// complaints remembers when each kind was logged last. The zero value is ready.
type complaints struct {
	mu   sync.Mutex
	last map[any]time.Time
}

func (c *complaints) due(kind any, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.last[kind]; ok && now.Sub(last) < time.Minute {
		return false
	}
	if c.last == nil {
		c.last = make(map[any]time.Time)
	}
	c.last[kind] = now
	return true
}
