package quota

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/redistrace"
)

// maxBatch is how many requests go together at most. It bounds for how long one call
// holds Redis.
const maxBatch = 64

// batcher sends requests in batches. A request that finds no call under way is sent at
// once, alone. Requests that come during a call wait for its end, and then go together in
// the next one, in the order in which they came. There is no timer: an idle batcher adds
// no delay, a busy one makes fewer and larger calls.
type batcher struct {
	// send makes one call and sets the outcome of each member. It gives up when ctx ends.
	send func(ctx context.Context, batch []*member)

	mu      sync.Mutex
	sending bool      // a call is under way; whoever made it takes waiting next
	waiting []*member // for the end of that call

	members sync.Pool // of *member, to be used again
}

// member is one request of a batch, and its outcome.
type member struct {
	ctx context.Context //nolint:containedctx // the member waits, another goroutine sends
	req Request

	done  chan struct{} // gets one value, when the outcome is set
	timer *time.Timer   // ends the wait

	result Result
	err    error
}

// take sends a request. It waits no longer than ctx allows, whatever the other members
// of the batch do. After an error it is not known whether tokens were taken.
func (b *batcher) take(ctx context.Context, req Request) (Result, error) {
	b.mu.Lock()
	if !b.sending {
		b.sending = true
		b.mu.Unlock()
		m := member{ctx: ctx, req: req}
		b.sendFirst(&m)
		return m.result, m.err
	}
	m := b.newMember(ctx, req)
	b.waiting = append(b.waiting, m)
	b.mu.Unlock()
	return b.wait(m)
}

// sendFirst sends a request for which nobody had to wait.
func (b *batcher) sendFirst(m *member) {
	defer func() { // also if send panics
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.sending = len(b.waiting) > 0; b.sending {
			go b.sendWaiting()
		}
	}()
	b.send(m.ctx, []*member{m})
}

// sendWaiting sends batches until nobody waits. The members of a batch wait for it, each
// until its own deadline; the call ends by the last of these.
func (b *batcher) sendWaiting() {
	for {
		batch := b.next()
		if batch == nil {
			return
		}
		b.sendSafely(batch)
		for _, m := range batch {
			m.done <- struct{}{}
		}
	}
}

// next returns the requests that go together now; nil if nobody waits. Those that have no
// time left, or were canceled, end here.
func (b *batcher) next() []*member {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.waiting) > 0 {
		batch := make([]*member, 0, min(len(b.waiting), maxBatch))
		rest := b.waiting
		for len(rest) > 0 && len(batch) < maxBatch {
			if m := rest[0]; m.ctx.Err() == nil {
				batch = append(batch, m)
			} else {
				m.err = m.ctx.Err()
				m.done <- struct{}{}
			}
			rest = rest[1:]
		}
		n := copy(b.waiting, rest)
		clear(b.waiting[n:])
		b.waiting = b.waiting[:n]
		if len(batch) > 0 {
			return batch
		}
	}
	b.sending = false
	return nil
}

// sendSafely makes a panic the error of the members: in a goroutine of its own it would
// end the process.
func (b *batcher) sendSafely(batch []*member) {
	defer func() {
		if p := recover(); p != nil {
			for _, m := range batch {
				m.err = fmt.Errorf("take tokens: panic: %v", p)
			}
		}
	}()
	ctx, cancel := untilLast(batch)
	defer cancel()
	var traced redistrace.Requests
	for _, m := range batch {
		traced.Add(m.ctx)
	}
	b.send(traced.Context(ctx), batch)
}

// untilLast returns a context that ends when the last of the members has to give up; it
// has no deadline if one of them has none.
func untilLast(batch []*member) (context.Context, context.CancelFunc) {
	var last time.Time
	for _, m := range batch {
		deadline, ok := m.ctx.Deadline()
		if !ok {
			return context.WithCancel(context.Background())
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	return context.WithDeadline(context.Background(), last)
}

func (b *batcher) newMember(ctx context.Context, req Request) *member {
	m, ok := b.members.Get().(*member)
	if !ok {
		m = &member{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	}
	m.ctx, m.req = ctx, req
	return m
}

// wait returns the outcome, or an error once the member's deadline has passed. A request
// that is canceled before that waits for its batch: nobody reads its answer any more. wait
// does not call Done of the context, which would start a timer (authz/budget.go).
func (b *batcher) wait(m *member) (Result, error) {
	m.timer.Stop()
	if deadline, ok := m.ctx.Deadline(); ok {
		m.timer.Reset(time.Until(deadline))
	}
	select {
	case <-m.done:
	case <-m.timer.C: // the goroutine that sends still has m, so m is not used again
		return Result{}, context.DeadlineExceeded
	}
	m.timer.Stop() // before another request gets m
	result, err := m.result, m.err
	m.ctx, m.req, m.result, m.err = nil, Request{}, Result{}, nil
	b.members.Put(m)
	return result, err
}
