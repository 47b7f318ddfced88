// Package backpressure watches a job queue in Redis and decides whether the queue can
// take another job.
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

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
	"github.com/refrakt-hub/refrakt-gate/internal/condition"
)

// snapshot is the newest sample, never changed once it is stored.
type snapshot struct {
	Sample

	at         time.Time // when the sample was begun, with the monotonic clock
	flow       flow
	by         *bounds       // that full and slow are judged by
	full, slow [classes]bool // with hysteresis, see applyThresholds
}

// refusal is the newest answer to an admission that the queue is full.
type refusal struct {
	at      time.Time
	pending int64
	// again is set by the first request that looks again once the refusal is old.
	again atomic.Bool
}

// speaks says that a request is refused without asking Redis, because another one was
// refused just now. After that time one request looks again; those that come before it
// has its answer are still refused, but not for longer than the same time once more.
func (r *refusal) speaks(now time.Time, to thresholds) bool {
	if r == nil || to.full == 0 || r.pending < int64(to.full) { // who was refused saw a lower limit
		return false
	}
	switch age := now.Sub(r.at); {
	case age < justNow:
		return true
	case age < 2*justNow:
		return !r.again.CompareAndSwap(false, true)
	default:
		return false
	}
}

// Monitor samples the queue, judges it, and counts admissions. One goroutine calls Run.
// All other methods are safe for concurrent use.
type Monitor struct {
	cfg     Config
	queue   Queue
	breaker *breaker.Breaker
	metrics *metrics
	inForce atomic.Pointer[bounds] // of the gauges and of new samples
	newest  atomic.Pointer[snapshot]
	refused [classes]atomic.Pointer[refusal] // nil: none yet

	slots        slots
	usage        usage
	admittedHere atomic.Int64 // by this gate

	sampling, admitting, used *condition.Condition

	mu      sync.Mutex // held for a sample, and to publish
	counted int64      // of admittedHere, at the newest sample
	drain   drain
	shown   shown
}

// shown is what the gauges show.
type shown struct {
	known bool
	state State
}

const (
	breakerFailures = 5                      // in a row, until requests do not ask any more
	breakerTimeout  = 500 * time.Millisecond // until the outcome of a sample counts again
)

// NewMonitor returns a monitor that knows nothing yet; cfg must be valid. The queue
// is not asked before Sample, Run or Admit.
func NewMonitor(cfg Config, limits Limits, queue Queue, reg prometheus.Registerer, log *slog.Logger) *Monitor {
	m := &Monitor{
		cfg:   cfg,
		queue: queue,
		breaker: breaker.New(breaker.Settings{
			Name: "queue", Failures: breakerFailures, Timeout: breakerTimeout,
		}, log),
		sampling:  condition.New(log, "queue sampling fails", "queue sampling works again"),
		admitting: condition.New(log, "queue admission fails", "queue admission works again").Quiet(admitQuiet),
		used:      condition.New(log, "the queue looks unused", "the queue is used"),
	}
	breaker.Register(reg, "queue", m.breaker.Open)
	m.inForce.Store(newBounds(limits)) // a scrape may come at once
	m.metrics = newMetrics(reg, m.sampleAge, m.usage.unused.Load, m.optional)
	m.SetLimits(limits)
	m.publish()
	return m
}

// SetLimits sets the limits that the gauges show and that new samples are judged by. What is
// known of the queue stays: the drain rate, and for the hysteresis which states it was in.
// SetLimits never waits for Redis. Requests are judged by the limits of their [View].
func (m *Monitor) SetLimits(l Limits) {
	b := newBounds(l)
	m.inForce.Store(b)
	m.metrics.showLimits(b)
	for c := range m.refused {
		m.refused[c].Store(nil)
	}
	if s := m.newest.Load(); s != nil {
		m.newest.CompareAndSwap(s, s.judgedBy(b)) // else there is a newer sample
	}
	if m.mu.TryLock() { // else a sample is under way, which publishes at its end
		defer m.mu.Unlock()
		m.publishChange()
	}
}

// admitQuiet is how long admissions must succeed until the log reports that they work
// again. It keeps a Redis that fails now and then from a line for each request.
const admitQuiet = 10 * time.Second

// maxSampleTime bounds one sample of Run. A SampleInterval that is shorter bounds it
// too.
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
		m.sampling.Fail(err)
	default:
		m.sampling.Succeed()
	}
}

// Sample looks at the queue once. If that fails the sample before stays the newest one,
// and grows old.
func (m *Monitor) Sample(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.publishChange()

	at := time.Now()
	var r Sample
	err := m.breaker.Probe(ctx, func(ctx context.Context) (err error) {
		r, err = m.queue.Sample(ctx, m.drain.last.Cursor, m.inForce.Load().FairShare > 0)
		return err
	})
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			m.metrics.sampleErrors.Inc()
		}
		return fmt.Errorf("sample queue: %w", err)
	}
	here := m.admittedHere.Load()
	s := &snapshot{Sample: r, at: at, flow: m.drain.observe(at, r, here-m.counted)}
	m.counted = here
	s.applyThresholds(m.inForce.Load(), m.newest.Load())
	m.newest.Store(s)
	m.slots.forget(at)
	m.usage.observe(r)
	if m.usage.unused.Load() {
		m.used.Fail(errUnused)
	} else {
		m.used.Succeed()
	}
	return nil
}

var errUnused = errors.New("requests that become jobs are let through, but no job and no worker was ever seen: is QUEUE_NAME, or the name in POLICY_FILE, the name that the application uses?")

// Problem says in words what keeps the monitor from seeing the queue though Redis
// answers; empty if nothing does.
func (m *Monitor) Problem() string {
	if !m.usage.unused.Load() {
		return ""
	}
	return "queue: " + errUnused.Error()
}

// State is that of the newest sample for callers without the reserved places, which are
// shed first. It needs no I/O and no locks.
func (m *Monitor) State() State {
	state, _ := judge(m.cfg, m.inForce.Load().of[plain], m.newest.Load(), time.Now())
	return state
}

// Depth returns how many jobs wait and for how many seconds the oldest has waited, by the
// newest sample, as the metrics have it: NaN for what is not known. It needs no I/O and no
// locks.
func (m *Monitor) Depth() (pending, age float64) {
	pending, age = math.NaN(), math.NaN()
	if s := m.newest.Load(); fresh(m.cfg, s, time.Now()) {
		pending = float64(s.Pending)
		if s.AgeKnown {
			age = s.OldestAge.Seconds()
		}
	}
	return pending, age
}

// View is the queue as requests see it that are judged by the same limits. It never
// changes: a request that keeps its View is judged by the same limits to its end. It is safe
// for concurrent use.
type View struct {
	*Monitor

	bounds *bounds
}

// View returns the queue as it is seen with these limits.
func (m *Monitor) View(l Limits) View { return View{m, newBounds(l)} }

// sample is the newest sample, judged by the limits of the View; nil if there is none.
func (v View) sample() *snapshot {
	s := v.newest.Load()
	if s == nil || s.by.Limits == v.bounds.Limits {
		return s
	}
	return s.judgedBy(v.bounds) // until the limits of the monitor follow, at a reload
}

// Shed judges the newest sample for a request, without I/O or locks. addsJob says that
// Admit looks at the queue again for this request. Full is then only what was seen full
// just now: the depth moves faster than samples are taken, and room must not stay empty
// until the next. What was seen full before that is provisional.
func (v View) Shed(a Asker, addsJob bool) Verdict {
	s, now, to := v.sample(), time.Now(), v.bounds.seen(a)
	if r := v.refused[to.class].Load(); addsJob && r.speaks(now, to) {
		return v.verdict(a.Address, StateFull, roomWait(v.cfg, to, r.pending, v.flow(now)))
	}
	state, wait := judge(v.cfg, to, s, now)
	if !addsJob || state != StateFull {
		return v.verdict(a.Address, state, wait)
	}
	if s.Pending >= int64(to.full) && now.Sub(s.at) < justNow {
		return v.verdict(a.Address, StateFull, roomWait(v.cfg, to, s.Pending, s.flow))
	}
	apart := to
	apart.pending, apart.full = 0, 0
	if state, wait := judge(v.cfg, apart, s, now); state != StateOK {
		return v.verdict(a.Address, state, wait)
	}
	verdict := v.verdict(a.Address, StateFull, wait)
	verdict.Provisional = true
	return verdict
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
		return m.retrySlot(caller, wait)
	}}
}

// justNow is for how long after an answer that the queue is full later requests are
// refused without asking Redis.
const justNow = 50 * time.Millisecond

// flow is that of the newest sample, zero if the sample is too old.
func (m *Monitor) flow(now time.Time) flow {
	if s := m.newest.Load(); fresh(m.cfg, s, now) {
		return s.flow
	}
	return flow{}
}

// retrySlot returns how long a caller that a full queue turns away is to wait: as
// long as the queue needs, or longer if others have slots before that.
func (m *Monitor) retrySlot(caller string, retryAfter time.Duration) time.Duration {
	now := time.Now()
	f := m.flow(now)
	if f.perSecond == 0 {
		return retryAfter
	}
	apart := time.Duration(float64(time.Second) / (slotsPerJob * f.perSecond * f.share))
	return wholeSeconds(m.slots.take(caller, now, retryAfter, apart, m.cfg.RetryMax))
}

// slotsPerJob is how many slots there are for each job that leaves. The other half of
// the places is for callers that come for the first time.
const slotsPerJob = 0.5

// publish sets the gauges from the newest sample.
func (m *Monitor) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.show(m.current())
}

// publishChange sets the gauges before the next poll if they show another state, or
// unknown for a known queue, or the reverse.
func (m *Monitor) publishChange() {
	if s, now := m.current(); now != m.shown {
		m.show(s, now)
	}
}

// current returns the newest sample, nil if it is too old, and what the gauges have to
// show.
func (m *Monitor) current() (*snapshot, shown) {
	s, now := m.newest.Load(), time.Now()
	state, _ := judge(m.cfg, m.inForce.Load().of[plain], s, now)
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
