package jobmetrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// metrics are the series about single jobs. Over all replicas each job is counted
// once, so their sum is right.
type metrics struct {
	enqueued    *prometheus.CounterVec
	transitions *prometheus.CounterVec
	wait, run   prometheus.Histogram
	leader      prometheus.Gauge
	subscribed  prometheus.Gauge
	errors      prometheus.Counter
}

// usual are the transitions that jobs of SAQ make; they are there, at 0, from the
// beginning. Others (a job retried by hand after its end) appear with the first.
var usual = []transition{
	{job.Unknown, job.Queued},
	{job.Queued, job.Active},
	{job.Queued, job.Aborting},
	{job.Active, job.Queued},
	{job.Active, job.Aborting},
	{job.Active, job.Complete},
	{job.Active, job.Failed},
	{job.Aborting, job.Queued},
	{job.Aborting, job.Aborted},
}

func newMetrics(reg prometheus.Registerer, sources Sources) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		enqueued: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "refrakt_job_enqueued_total",
			Help: "Jobs enqueued, by their source.",
		}, []string{"source"}),
		transitions: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "refrakt_job_status_transitions_total",
			Help: "Changes of jobs' status; each job comes from unknown.",
		}, []string{"from_status", "to_status"}),
		wait: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "refrakt_job_queue_wait_seconds",
			Help:    "Time from when a job last became runnable to its start, for each start.",
			Buckets: []float64{1, 5, 15, 30, 60, 120, 300, 600, 1200},
		}),
		run: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "refrakt_job_run_duration_seconds",
			Help:    "Time from a job's last start to its end.",
			Buckets: []float64{30, 60, 120, 300, 600, 1200, 1800, 3600},
		}),
		leader: auto.NewGauge(prometheus.GaugeOpts{
			Name: "refrakt_gate_job_counter_leader",
			Help: "1 on the replica that counts the jobs, 0 on the others.",
		}),
		subscribed: auto.NewGauge(prometheus.GaugeOpts{
			Name: "refrakt_gate_job_events_subscribed",
			Help: "1 while this replica is subscribed to the status events of jobs, else 0.",
		}),
		errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_job_counter_errors_total",
			Help: "Failed exchanges with Redis about single jobs. What they were about is counted later.",
		}),
	}
	for _, s := range append([]string{job.SourceOther, sourceUnknown}, sources...) {
		m.enqueued.WithLabelValues(s)
	}
	for _, t := range usual {
		m.transitions.WithLabelValues(string(t.from), string(t.to))
	}
	return m
}

func (m *metrics) count(t tally, sources Sources) {
	for _, j := range t.jobs {
		m.enqueued.WithLabelValues(sources.label(j.Source)).Inc()
	}
	for _, t := range t.transitions {
		m.transitions.WithLabelValues(string(t.from), string(t.to)).Inc()
	}
	for _, s := range t.waits {
		m.wait.Observe(s)
	}
	for _, s := range t.runs {
		m.run.Observe(s)
	}
}
