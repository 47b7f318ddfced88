package backpressure

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// optional has the values of series that exist only while the limits give them a meaning.
type optional struct {
	shares                   bool // there is a fair share
	largestShare, shareLimit float64
	reserve                  bool // there is a reserve
	reserveUsedUp            float64
}

// optional is what these series say now.
func (m *Monitor) optional() optional {
	b, s, now := m.inForce.Load(), m.newest.Load(), time.Now()
	o := optional{shares: b.FairShare > 0, reserve: b.Reserve > 0}
	o.largestShare, o.shareLimit, o.reserveUsedUp = math.NaN(), math.NaN(), math.NaN()
	if !fresh(m.cfg, s, now) {
		return o
	}
	o.largestShare, o.shareLimit = float64(s.LargestShare), float64(b.place(Asker{}).MayHold(s.Pending))
	switch state, _ := judge(m.cfg, b.of[reserved], s, now); state {
	case StateOK:
		o.reserveUsedUp = 0
	case StateFull, StateSlow:
		o.reserveUsedUp = 1
	}
	return o
}

var (
	largestShare = prometheus.NewDesc("refrakt_gate_queue_largest_share_jobs",
		"Jobs, waiting or on their way, of the caller that has most; NaN while unknown.", nil, nil)
	shareLimit = prometheus.NewDesc("refrakt_gate_queue_share_limit_jobs",
		"Jobs that one caller without reserved places may have now; NaN while unknown.", nil, nil)
	reserveUsedUp = prometheus.NewDesc("refrakt_gate_queue_reserve_used_up",
		"1 while the queue is full or slow for callers with reserved places too, else 0; NaN while unknown.", nil, nil)
)

// optionalCollector collects the optional series.
type optionalCollector struct{ now func() optional }

// Describe implements [prometheus.Collector].
func (c optionalCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- largestShare
	descs <- shareLimit
	descs <- reserveUsedUp
}

// Collect implements [prometheus.Collector].
func (c optionalCollector) Collect(to chan<- prometheus.Metric) {
	o := c.now()
	if o.shares {
		to <- prometheus.MustNewConstMetric(largestShare, prometheus.GaugeValue, o.largestShare)
		to <- prometheus.MustNewConstMetric(shareLimit, prometheus.GaugeValue, o.shareLimit)
	}
	if o.reserve {
		to <- prometheus.MustNewConstMetric(reserveUsedUp, prometheus.GaugeValue, o.reserveUsedUp)
	}
}
