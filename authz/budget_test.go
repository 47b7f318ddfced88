package authz

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudget: whoever looks at the deadline, asks for the error, waits for the end, or
// makes a context of its own sees the same end of a budget, however it ends.
func TestBudget(t *testing.T) {
	cause := errors.New("gone")
	tests := map[string]struct {
		end   func(b *budget, envoy context.CancelCauseFunc)
		at    time.Duration
		err   error
		cause error
	}{
		"the time is over":    {func(*budget, context.CancelCauseFunc) {}, 100 * time.Millisecond, context.DeadlineExceeded, context.DeadlineExceeded},
		"the Check is over":   {func(b *budget, _ context.CancelCauseFunc) { b.stop() }, 10 * time.Millisecond, context.Canceled, context.Canceled},
		"Envoy does not wait": {func(_ *budget, envoy context.CancelCauseFunc) { envoy(cause) }, 10 * time.Millisecond, context.Canceled, cause},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				envoy, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
				defer cancel(nil)
				end := start.Add(100 * time.Millisecond)
				untimed, timed, parent := newBudget(envoy, end), newBudget(envoy, end), newBudget(envoy, end)
				child, stop := context.WithTimeout(parent, time.Hour)
				defer stop()
				select {
				case <-timed.Done():
					t.Fatal("ended at once")
				default:
				}
				for _, ctx := range []context.Context{untimed, timed, parent, child} {
					if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(end) || ctx.Err() != nil || ctx.Value(key{}) != "value" {
						t.Fatalf("%T: deadline %v, error %v", ctx, deadline, ctx.Err())
					}
				}
				time.Sleep(tt.at - time.Nanosecond)
				synctest.Wait()
				for _, ctx := range []context.Context{untimed, timed, parent, child} {
					if ctx.Err() != nil {
						t.Fatalf("%T ended before its time: %v", ctx, ctx.Err())
					}
				}
				time.Sleep(time.Nanosecond)
				for _, b := range []*budget{untimed, timed, parent} {
					tt.end(b, cancel)
				}
				synctest.Wait()
				for _, ctx := range []context.Context{untimed, timed, parent, child} {
					if !errors.Is(ctx.Err(), tt.err) {
						t.Errorf("%T: error %v, want %v", ctx, ctx.Err(), tt.err)
					}
					select {
					case <-ctx.Done():
					default:
						t.Errorf("%T: not done", ctx)
					}
					if got := context.Cause(ctx); !errors.Is(got, tt.cause) {
						t.Errorf("%T: cause %v, want %v", ctx, got, tt.cause)
					}
				}
				// What was once the error stays it.
				for _, b := range []*budget{untimed, timed, parent} {
					b.stop()
					cancel(nil)
					time.Sleep(time.Second)
					if !errors.Is(b.Err(), tt.err) {
						t.Errorf("error %v later, want %v", b.Err(), tt.err)
					}
				}
			})
		})
	}
}

type key struct{}

// TestBudgetIsCheap: a Check that nobody waits for starts no timer, and a context that is
// made from its own starts no goroutine.
func TestBudgetIsCheap(t *testing.T) {
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		b := newBudget(ctx, time.Now().Add(time.Minute))
		_, _ = b.Deadline()
		_ = b.Err()
		b.stop()
	})
	if allocs > 1 {
		t.Errorf("%v allocations, want 1", allocs)
	}
	before := runtime.NumGoroutine()
	b := newBudget(ctx, time.Now().Add(time.Minute))
	defer b.stop()
	for range 10 {
		_, cancel := context.WithCancel(b)
		defer cancel()
	}
	if n := runtime.NumGoroutine() - before; n > 0 {
		t.Errorf("%d goroutines more", n)
	}
}
