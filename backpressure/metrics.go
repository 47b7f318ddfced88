package backpressure

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the queue's series. What isn't known is NaN: zero would read as an
// idle queue.
type metrics struct {
	pending, running, oldest prometheus.Gauge
	workers, drainRate       prometheus.Gauge
	limitPending, limitAge   prometheus.Gauge
	state                    map[State]prometheus.Gauge

	sampleErrors, admitErrors prometheus.Counter
}

// newMetrics registers the series; sampleAge, unused and now are asked at each scrape.
func newMetrics(reg prometheus.Registerer, sampleAge func() float64, unused func() bool, now func() optional) *metrics {
	auto := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		pending:   gauge("refrakt_queue_pending_jobs", "Jobs waiting in the queue; NaN while unknown."),
		running:   gauge("refrakt_queue_running_jobs", "Jobs taken by workers; NaN while unknown."),
		oldest:    gauge("refrakt_queue_oldest_pending_seconds", "Age of the oldest waiting job since it became runnable; 0 when nothing waits, NaN while unknown."),
		workers:   gauge("refrakt_gate_queue_live_workers", "Workers that reported lately; NaN while unknown."),
		drainRate: gauge("refrakt_gate_queue_drain_jobs_per_second", "Observed rate at which jobs leave the queue; 0 when none were seen to, NaN while unknown."),
		// Alerts compare with these, so that they can't drift from the settings.
		limitPending: gauge("refrakt_gate_queue_limit_pending_jobs", "Jobs waiting at which the queue is full for callers without reserved places; 0 while this is not checked."),
		limitAge:     gauge("refrakt_gate_queue_limit_age_seconds", "Age of the oldest waiting job at which the queue is slow for callers without reserved places; 0 while this is not checked."),
		state:        make(map[State]prometheus.Gauge, len(states)),
	}
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "refrakt_gate_queue_sample_age_seconds",
		Help: "Age of the newest sample of the queue; NaN before the first.",
	}, sampleAge)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "refrakt_gate_queue_unused",
		Help: "1 while requests are let through for minutes and no job and no worker was ever seen in the queue, else 0.",
	}, func() float64 {
		if unused() {
			return 1
		}
		return 0
	})
	byState := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "refrakt_gate_queue_state",
		Help: "1 for the state that the queue is in for callers without reserved places, 0 for the others.",
	}, []string{"state"})
	for _, s := range states {
		m.state[s] = byState.WithLabelValues(string(s))
	}
	byOp := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "refrakt_gate_queue_errors_total",
		Help: "Failed exchanges with Redis about the queue.",
	}, []string{"op"})
	m.sampleErrors = byOp.WithLabelValues("sample")
	m.admitErrors = byOp.WithLabelValues("admit")
	reg.MustRegister(optionalCollector{now})
	return m
}

// showLimits sets the gauges of the limits.
func (m *metrics) showLimits(b *bounds) {
	m.limitPending.Set(float64(b.of[plain].full))
	m.limitAge.Set(b.of[plain].age.Seconds())
}

// show sets the gauges from a sample, nil if none is recent.
func (m *metrics) show(s *snapshot, state State) {
	for name, g := range m.state {
		g.Set(0)
		if name == state {
			g.Set(1)
		}
	}
	if s == nil {
		for _, g := range []prometheus.Gauge{m.pending, m.running, m.oldest, m.workers, m.drainRate} {
			g.Set(math.NaN())
		}
		return
	}
	m.pending.Set(float64(s.Pending))
	m.running.Set(float64(s.Running))
	m.workers.Set(float64(s.Workers))
	m.drainRate.Set(s.flow.leaving)
	m.oldest.Set(math.NaN())
	if s.AgeKnown {
		m.oldest.Set(s.OldestAge.Seconds())
	}
}
