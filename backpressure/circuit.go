package backpressure

import (
	"context"
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	circuitFailures = 5                      // in a row, until it opens
	circuitTimeout  = 500 * time.Millisecond // until an open one lets a probe through
	// slowAnswer is from when on an answer counts against Redis: a sample has time for
	// it, a request has not.
	slowAnswer = 250 * time.Millisecond
)

// errSlow says that an answer came, but too late for a request.
var errSlow = errors.New("Redis answers slowly")

// circuit spares requests the wait for a Redis that is away.
type circuit struct {
	breaker *gobreaker.CircuitBreaker[struct{}]
}

func newCircuit() circuit {
	return circuit{gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "queue",
		Timeout:     circuitTimeout,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= circuitFailures },
		IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) },
	})}
}

// closed says whether a request may ask Redis. Half open is for samples, on
// which nobody waits.
func (c circuit) closed() bool { return c.breaker.State() == gobreaker.StateClosed }

// do asks and counts the outcome.
func (c circuit) do(ctx context.Context, ask func(context.Context) error) error {
	_, err := c.breaker.Execute(func() (struct{}, error) { return struct{}{}, attempt(ctx, ask) })
	return err
}

// attempt asks. A caller that has gone away is not Redis's fault, whatever error
// the client makes of it.
func attempt(ctx context.Context, ask func(context.Context) error) error {
	err := ask(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	return err
}

// inTime is ask with an answer that comes late as errSlow.
func inTime(ask func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		begin := time.Now()
		err := ask(ctx)
		if err == nil && time.Since(begin) > slowAnswer {
			return errSlow
		}
		return err
	}
}

// refused tells the circuit's own errors from Redis's: nothing was asked.
func refused(err error) bool {
	return errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests)
}
