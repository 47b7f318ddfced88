package quota

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	fallbacks prometheus.Counter
	errors    prometheus.Counter
	known     prometheus.Counter
	duration  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, degraded func() bool) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "refrakt_gate_fallback_active",
		Help: "1 while the limiter's Redis, or a server of its cluster, is not asked because it failed, else 0.",
	}, func() float64 {
		if degraded() {
			return 1
		}
		return 0
	})
	return &metrics{
		fallbacks: f.NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_fallback_total",
			Help: "Requests whose limit was decided without the limiter's Redis.",
		}),
		errors: f.NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_limiter_errors_total",
			Help: "Requests for which the limiter's Redis was asked and did not answer rightly or in time.",
		}),
		known: f.NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_limiter_known_empty_total",
			Help: "Requests that were refused without asking the limiter's Redis, because it had just found their bucket empty.",
		}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "refrakt_gate_limiter_duration_seconds",
			Help:    "Time until the limiter's Redis had answered, with the wait for a call under way.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1},
		}),
	}
}
