package authz

import (
	"context"
	"sync"
	"time"
)

// budget is the context of one Check. It ends when Envoy no longer waits, when the time
// that the Check may wait for Redis is over, or when the Check does. Deadline and Err need
// no timer: only Done starts one. Most Checks never call it, because they share a call to
// Redis that has a timer of its own.
type budget struct {
	context.Context // Envoy's

	deadline time.Time

	mu    sync.Mutex
	err   error           // once the budget has ended, and somebody has seen that
	timed context.Context // nil until Done is called
	end   context.CancelFunc
}

// newBudget returns a budget. Call stop when the Check is over.
func newBudget(ctx context.Context, deadline time.Time) *budget {
	return &budget{Context: ctx, deadline: deadline}
}

// Deadline implements [context.Context]. The deadline is never after Envoy's.
func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }

// Done implements [context.Context].
func (b *budget) Done() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil {
		b.timed, b.end = context.WithDeadline(b.Context, b.deadline)
		if b.err != nil {
			b.end()
		}
	}
	return b.timed.Done()
}

// Err implements [context.Context].
func (b *budget) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = b.now()
	}
	return b.err
}

// now is why the budget has ended by now, or nil.
func (b *budget) now() error {
	if b.timed != nil {
		return b.timed.Err()
	}
	if err := b.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(b.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value implements [context.Context]. Contexts that are made from this one find its timer
// by a value, so that they need no goroutine to wait for it.
func (b *budget) Value(key any) any {
	b.mu.Lock()
	timed := b.timed
	b.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return b.Context.Value(key)
}

// stop ends the budget.
func (b *budget) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = context.Canceled
	}
	if b.end != nil {
		b.end()
	}
}
