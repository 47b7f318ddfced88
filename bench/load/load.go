// Package load puts a closed loop of requests on a server: each answer is followed at once by the next request, so a
// fixed number of requests is always in flight. The requests are encoded once, and only the caller is patched into
// them, so the generator itself costs a few microseconds a request.
package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Load is one run.
type Load struct {
	// Addrs are the TCP addresses of the servers. The connections go to them in turn.
	Addrs           []string
	Conns, InFlight int
	Traffic         *Traffic
	// A run takes Warm and then Measure, or, if Count is not 0, as long as so many requests need. Answers in Warm
	// are not counted.
	Warm, Measure time.Duration
	Count         int64
	// Begin and End are called when the measured time begins and ends; either may be nil.
	Begin, End func()
}

// giveUp is how long after its end a run may wait for the last answers, and how long one with a Count may last.
const (
	giveUp      = 10 * time.Second
	giveUpCount = 5 * time.Minute
)

// run is what the connections of a Load share.
type run struct {
	ctx   context.Context
	phase atomic.Int32
	left  atomic.Int64 // requests to send, if the Load has a Count
	count bool
	turn  atomic.Int64 // callers that were picked in turn
	until time.Time
}

const (
	warming int32 = iota
	measured
	done
)

func (r *run) measuring() bool { return r.phase.Load() == measured }

// another reports whether one more request may be sent.
func (r *run) another() bool {
	if r.phase.Load() == done || r.ctx.Err() != nil {
		return false
	}
	return !r.count || r.left.Add(-1) >= 0
}

// Run puts on the load and returns what came of it.
func (l Load) Run(ctx context.Context) (Result, error) {
	r := &run{ctx: ctx, count: l.Count > 0, until: time.Now().Add(l.Warm + l.Measure + giveUp)}
	if r.count {
		r.left.Store(l.Count)
		r.until = time.Now().Add(giveUpCount)
	}
	conns, err := l.dial(ctx)
	if err != nil {
		return Result{}, err
	}
	if r.count {
		r.begin(l.Begin)
	}
	begun := time.Now()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total Result
		errs  []error
	)
	for i, c := range conns {
		share := l.InFlight / len(conns)
		if i < l.InFlight%len(conns) {
			share++
		}
		wg.Go(func() {
			defer c.Close()
			result, err := l.Traffic.drive(r, c, share, newCallers(l.Traffic, r))
			mu.Lock()
			defer mu.Unlock()
			total.merge(&result)
			if err != nil {
				errs = append(errs, fmt.Errorf("connection %d: %w", i, err))
				r.phase.Store(done)
			}
		})
	}
	var took time.Duration
	if r.count {
		wg.Wait()
		took = time.Since(begun)
		call(l.End)
	} else {
		wait(ctx, l.Warm)
		r.begin(l.Begin)
		begun = time.Now()
		wait(ctx, l.Measure)
		r.phase.Store(done)
		took = time.Since(begun)
		call(l.End)
		wg.Wait()
	}
	total.Took = took
	return total, errors.Join(append(errs, ctx.Err())...)
}

func (r *run) begin(hook func()) {
	call(hook)
	r.phase.CompareAndSwap(warming, measured)
}

func (l Load) dial(ctx context.Context) ([]net.Conn, error) {
	var d net.Dialer
	var conns []net.Conn
	for i := range max(1, min(l.Conns, l.InFlight)) {
		c, err := d.DialContext(ctx, "tcp", l.Addrs[i%len(l.Addrs)])
		if err != nil {
			for _, c := range conns {
				_ = c.Close()
			}
			return nil, fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func call(hook func()) {
	if hook != nil {
		hook()
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
