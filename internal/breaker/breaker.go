// Package breaker keeps requests from waiting for a Redis that is known to be
// away. It is a circuit breaker that requests never probe: see docs/adr/0002.
package breaker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sony/gobreaker/v2"
)

// ErrOpen says that Redis was not asked, because the breaker is open.
var ErrOpen = errors.New("circuit breaker is open")

// slowAnswer is how long an answer to a probe may take and still count as a
// success. A probe has time for a slower one, a request has not.
const slowAnswer = 250 * time.Millisecond

var errSlow = errors.New("the answer came too late for a request")

// Settings say when a breaker opens and closes.
type Settings struct {
	// Name is what the log calls the Redis behind the breaker: limiter or queue.
	Name string
	// Failures is how many calls in a row must fail until the breaker opens.
	Failures uint32
	// Timeout is how long the breaker stays open until the outcome of a probe counts.
	Timeout time.Duration
	// Ignore says that an error tells nothing about Redis; nil ignores none. The
	// error of a caller that went away is always ignored.
	Ignore func(error) bool
}

// Breaker is closed at first. It is safe for concurrent use.
type Breaker struct {
	cb *gobreaker.CircuitBreaker[struct{}]
}

// New returns a closed breaker. Each change of its state is logged once.
func New(s Settings, log *slog.Logger) *Breaker {
	return &Breaker{gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        s.Name,
		Timeout:     s.Timeout,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= s.Failures },
		IsExcluded: func(err error) bool {
			return errors.Is(err, context.Canceled) || s.Ignore != nil && s.Ignore(err)
		},
		OnStateChange: func(name string, from, to gobreaker.State) {
			switch {
			case from == gobreaker.StateClosed:
				log.Warn("Redis lost: requests are decided without it", "breaker", name)
			case to == gobreaker.StateClosed:
				log.Info("Redis is back: requests ask it again", "breaker", name)
			}
		},
	})}
}

// Open says that requests are decided without Redis.
func (b *Breaker) Open() bool { return b.cb.State() != gobreaker.StateClosed }

// Do asks Redis on behalf of a request, unless the breaker is open: then it
// returns [ErrOpen] at once. Otherwise it returns what ask returns, or
// [context.Canceled] if the caller went away meanwhile.
func (b *Breaker) Do(ctx context.Context, ask func(context.Context) error) error {
	if b.Open() {
		return ErrOpen
	}
	err := b.execute(func() error { return attempt(ctx, ask) })
	if refused(err) {
		return ErrOpen
	}
	return err
}

// Probe asks Redis on behalf of nobody, whatever the state is, and returns what
// ask returns. An open breaker closes when its timeout is over and a probe is
// answered in time.
func (b *Breaker) Probe(ctx context.Context, ask func(context.Context) error) error {
	var answer error
	err := b.execute(func() error {
		begin := time.Now()
		answer = attempt(ctx, ask)
		if answer == nil && time.Since(begin) > slowAnswer {
			return errSlow
		}
		return answer
	})
	if refused(err) {
		return attempt(ctx, ask)
	}
	return answer
}

func (b *Breaker) execute(ask func() error) error {
	_, err := b.cb.Execute(func() (struct{}, error) { return struct{}{}, ask() })
	return err
}

// attempt asks. The error of a caller that went away is not Redis's, whatever the
// client makes of it.
func attempt(ctx context.Context, ask func(context.Context) error) error {
	err := ask(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	return err
}

// refused says that an error is the breaker's own: nothing was asked.
func refused(err error) bool {
	return errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests)
}

// Register adds the gauge of one breaker, or of several that go by one name: open
// says whether any of them is open.
func Register(reg prometheus.Registerer, name string, open func() bool) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "refrakt_gate_breaker_open",
		Help:        "1 while requests do not ask this Redis, or a server of its cluster, because it failed; else 0.",
		ConstLabels: prometheus.Labels{"breaker": name},
	}, func() float64 {
		if open() {
			return 1
		}
		return 0
	})
}
