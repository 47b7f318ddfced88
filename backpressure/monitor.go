// Package backpressure watches a SAQ queue in Redis and says whether it can take
// another job.
package backpressure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Redis is what the package needs of a client. The client must not retry by
// itself: a repeated admission would be counted twice.
type Redis interface {
	redis.Scripter
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
	MGet(ctx context.Context, keys ...string) *redis.SliceCmd
	PSubscribe(ctx context.Context, patterns ...string) *redis.PubSub
}

var _ Redis = redis.UniversalClient(nil)

// snapshot is the newest sample, never changed once it is stored.
type snapshot struct {
	reading

	at         time.Time // when the sample was begun, with the monotonic clock
	flow       flow
	full, slow bool // with hysteresis, see mark
}

// refusal is the newest look of Admit that found the queue full.
type refusal struct {
	at      time.Time
	pending int64
}

// Monitor samples the queue, judges it, and counts admissions. One goroutine
// runs Run; all else may be called by any number at once.
type Monitor struct {
	cfg     Config
	rdb     Redis
	read    func(context.Context, marks) (reading, error)
	ask     func(context.Context) (admission, error)
	circuit circuit
	metrics *metrics
	newest  atomic.Pointer[snapshot]
	refused atomic.Pointer[refusal] // nil: none yet

	turns turns
	own   atomic.Int64 // jobs admitted

	sampling, admitting health

	mu    sync.Mutex // held for a sample, and to publish
	seen  int64      // of own, at the newest sample
	drain drain
	shown shown
}

// shown is what the gauges last told.
type shown struct {
	known bool
	state State
}

// NewMonitor returns a monitor that knows nothing yet; cfg must be valid. Redis
// is not asked before Sample, Run or Admit.
func NewMonitor(cfg Config, rdb Redis, reg prometheus.Registerer, log *slog.Logger) *Monitor {
	m := &Monitor{
		cfg:       cfg,
		rdb:       rdb,
		circuit:   newCircuit(),
		sampling:  health{log: log, what: "queue sampling"},
		admitting: health{log: log, what: "queue admission", quiet: admitQuiet},
	}
	m.read = func(ctx context.Context, before marks) (reading, error) {
		return readQueue(ctx, rdb, cfg.QueueName, before)
	}
	m.ask = func(ctx context.Context) (admission, error) { return admit(ctx, m.rdb, cfg) }
	m.metrics = newMetrics(cfg, reg, m.sampleAge)
	m.publish()
	return m
}

// admitQuiet keeps a Redis that fails now and then from a log line per request.
const admitQuiet = 10 * time.Second

// maxSampleTime bounds one sample of Run, however rare samples are.
const maxSampleTime = time.Second

// Run samples on the interval and keeps the gauges up to date until ctx ends;
// it returns nil then.
func (m *Monitor) Run(ctx context.Context) error {
	sample := time.NewTicker(m.cfg.SampleInterval)
	defer sample.Stop()
	poll := time.NewTicker(m.cfg.PollInterval)
	defer poll.Stop()
	m.step(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sample.C:
			m.step(ctx)
		case <-poll.C:
			m.publish()
		}
	}
}

// step is one sample of Run, with its own deadline and its outcome logged.
func (m *Monitor) step(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(m.cfg.SampleInterval, maxSampleTime))
	defer cancel()
	switch err := m.Sample(ctx); {
	case errors.Is(err, context.Canceled):
	case err != nil:
		m.sampling.failed(err)
	default:
		m.sampling.succeeded()
	}
}

// Sample looks at the queue once, now. A failure leaves the newest sample to
// grow old.
func (m *Monitor) Sample(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.publishChange()

	at := time.Now()
	var r reading
	ask := func(ctx context.Context) (err error) {
		r, err = m.read(ctx, m.drain.last.marks)
		return err
	}
	err := m.circuit.do(ctx, inTime(ask))
	switch {
	case refused(err):
		// Nobody waits for a sample, so it asks all the same: the answer and the
		// true error are worth having, only the circuit hears of neither.
		err = attempt(ctx, ask)
	case errors.Is(err, errSlow):
		err = nil // only the circuit is to hear of that
	}
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			m.metrics.sampleErrors.Inc()
		}
		return fmt.Errorf("sample queue: %w", err)
	}
	own := m.own.Load()
	s := &snapshot{reading: r, at: at, flow: m.drain.observe(at, r, own-m.seen)}
	m.seen = own
	s.mark(m.cfg, m.newest.Load())
	m.newest.Store(s)
	m.turns.forget(at)
	return nil
}

// State is that of the newest sample, without I/O or locks.
func (m *Monitor) State() State {
	state, _ := judge(m.cfg, m.newest.Load(), time.Now())
	return state
}

// Shed judges the newest sample for a caller, without I/O or locks. addsJob says that
// Admit looks at the queue again for this request. Full is then only what was seen full
// just now: the depth moves faster than samples are taken, and room must not stay empty
// until the next. What was seen full before that is provisional.
func (m *Monitor) Shed(caller string, addsJob bool) Verdict {
	s, now := m.newest.Load(), time.Now()
	if r := m.refused.Load(); addsJob && r != nil && now.Sub(r.at) < justNow {
		return m.verdict(caller, StateFull, roomWait(m.cfg, r.pending, m.flow(now)))
	}
	state, wait := judge(m.cfg, s, now)
	if !addsJob || state != StateFull {
		return m.verdict(caller, state, wait)
	}
	if s.pending >= int64(m.cfg.MaxPending) && now.Sub(s.at) < justNow {
		return m.verdict(caller, StateFull, roomWait(m.cfg, s.pending, s.flow))
	}
	apart := m.cfg
	apart.MaxPending = 0
	if state, wait := judge(apart, s, now); state != StateOK {
		return m.verdict(caller, state, wait)
	}
	v := m.verdict(caller, StateFull, wait)
	v.Provisional = true
	return v
}

// verdict completes a judgement for a caller.
func (m *Monitor) verdict(caller string, state State, wait time.Duration) Verdict {
	if state == StateOK {
		return Verdict{State: StateOK}
	}
	wait = jittered(wait, rand.Float64())
	return Verdict{State: state, RetryAfter: func() time.Duration {
		if state != StateFull {
			return wait
		}
		return m.turn(caller, wait)
	}}
}

// justNow is how long a request that finds the queue full speaks for those after
// it, which then don't ask Redis.
const justNow = 50 * time.Millisecond

// flow is the newest that was observed, zero if that is too old.
func (m *Monitor) flow(now time.Time) flow {
	if s := m.newest.Load(); fresh(m.cfg, s, now) {
		return s.flow
	}
	return flow{}
}

// turn is how long a caller that a full queue turns away is to wait: as long as the
// queue needs, or longer if others were told to come before it. It is to be asked
// only for those that are told.
func (m *Monitor) turn(caller string, retryAfter time.Duration) time.Duration {
	now := time.Now()
	f := m.flow(now)
	if f.perSecond == 0 {
		return retryAfter
	}
	apart := time.Duration(float64(time.Second) / (turnsPerJob * f.perSecond * f.share))
	return wholeSeconds(m.turns.take(caller, now, retryAfter, apart, m.cfg.RetryMax))
}

// turnsPerJob is for how many callers there is a place to come back to when a job
// leaves: the other half of the places is for those that come unasked.
const turnsPerJob = 0.5

// publish sets the gauges from the newest sample.
func (m *Monitor) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.show(m.current())
}

// publishChange doesn't wait for the next poll when the gauges would tell a
// wrong state, or say unknown of a known queue, or the reverse.
func (m *Monitor) publishChange() {
	if s, now := m.current(); now != m.shown {
		m.show(s, now)
	}
}

// current is the newest sample, nil if it is too old, and what it amounts to.
func (m *Monitor) current() (*snapshot, shown) {
	s, now := m.newest.Load(), time.Now()
	state, _ := judge(m.cfg, s, now)
	if !fresh(m.cfg, s, now) {
		s = nil
	}
	return s, shown{known: s != nil, state: state}
}

func (m *Monitor) show(s *snapshot, now shown) {
	m.metrics.show(s, now.state)
	m.shown = now
}

func (m *Monitor) sampleAge() float64 {
	if s := m.newest.Load(); s != nil {
		return time.Since(s.at).Seconds()
	}
	return math.NaN()
}
