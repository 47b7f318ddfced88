package authz

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	decisions      *decisionCounters
	shadowed       *prometheus.CounterVec
	callers        callerCounters
	configWarnings *prometheus.CounterVec
	ambiguous      prometheus.Counter
	unknownIP      prometheus.Counter
	duration       prometheus.Histogram
	shadow         *prometheus.GaugeVec

	gone []string // policies before the newest rules; see forget
}

// newMetrics registers the series. Some of them ask s at each scrape.
func newMetrics(reg prometheus.Registerer, s *Server, users UserSources) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		decisions: newDecisionCounters(f.NewCounterVec(prometheus.CounterOpts{
			Name: "refrakt_gate_decisions_total",
			Help: "Requests decided, by policy, verdict (allow, deny) and reason.",
		}, []string{"policy", "verdict", "reason"})),
		shadowed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "refrakt_gate_shadow_denials_total",
			Help: "Requests that a check in shadow mode would have denied.",
		}, []string{"policy"}),
		shadow: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "refrakt_gate_shadow_active",
			Help: "1 while a check (limit, queue) is in shadow mode and denies nothing, 0 while it is enforced.",
		}, []string{"check", "policy"}),
		callers: newCallerCounters(f.NewCounterVec(prometheus.CounterOpts{
			Name: "refrakt_gate_callers_total",
			Help: "Requests whose buckets were asked, by where the address of the client and its user were found.",
		}, []string{"ip_from", "user_from"})),
		configWarnings: f.NewCounterVec(prometheus.CounterOpts{
			Name: "refrakt_gate_envoy_doubts_total",
			Help: "Requests that show that Envoy is not set up as the gate expects, by the setting that the warning is about.",
		}, []string{"about"}),
		ambiguous: f.NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_ambiguous_users_total",
			Help: "Requests that named more than one user, or none for sure, and counted as anonymous.",
		}),
		unknownIP: f.NewCounter(prometheus.CounterOpts{
			Name: "refrakt_gate_unknown_ips_total",
			Help: "Requests without a client address; they share one bucket.",
		}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "refrakt_gate_check_duration_seconds",
			Help:    "Duration of a Check, with the time that it waits for Redis.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25},
		}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "refrakt_gate_checks_in_progress",
		Help: "Checks that are under way.",
	}, func() float64 { return float64(s.underWay.Load()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "refrakt_gate_guards_nothing",
		Help: "1 while not one of many requests that Envoy has asked about since the start was guarded, else 0.",
	}, func() float64 {
		if s.GuardsNothing() {
			return 1
		}
		return 0
	})
	// Series that alerts use exist from the start, with the value 0.
	m.decisions.get(policyUnknown, verdict(true), ReasonUnknownPolicy)
	for _, ip := range []IPSource{IPFromHeader, IPFromForwarded, IPFromPeer, IPFromProxy, IPFromNothing} {
		for _, user := range append(slices.Clone(users), UserNone, UserAmbiguous) {
			m.callers.WithLabelValues(string(ip), string(user))
		}
	}
	for about := range configWarnings {
		m.configWarnings.WithLabelValues(string(about))
	}
	return m
}

// count enters one decision, in the counter of its kind, and the duration of its Check.
func (m *metrics) count(d *Decision, counter prometheus.Counter, took time.Duration) {
	m.duration.Observe(took.Seconds())
	counter.Inc()
	if d.Shadow {
		m.shadowed.WithLabelValues(d.Policy).Inc()
	}
}

// callerCounters are the counters of callers by ip_from and user_from, looked up once each.
type callerCounters struct {
	*memo[[2]string, prometheus.Counter]
}

func newCallerCounters(vec *prometheus.CounterVec) callerCounters {
	return callerCounters{newMemo(func(from [2]string) prometheus.Counter { return vec.WithLabelValues(from[:]...) })}
}

// WithLabelValues returns a counter as that of CounterVec does.
func (c callerCounters) WithLabelValues(ipFrom, userFrom string) prometheus.Counter {
	return c.get([2]string{ipFrom, userFrom})
}

// show makes the series of the policies. Those that alerts use exist from the start, with
// the value 0.
func (m *metrics) show(r *rules) {
	for _, g := range r.guarded {
		m.decisions.get(g.name, verdict(false), ReasonOK)
		reasons := []Reason{ReasonRateLimited, ReasonQueueFull, ReasonQueueSlow, ReasonQueueUnknown, ReasonLimiterUnavailable, ReasonOverloaded, ReasonInternal}
		if g.shares {
			reasons = append(reasons, ReasonQueueShare)
		}
		for _, reason := range reasons {
			m.decisions.get(g.name, verdict(true), reason)
		}
		m.shadowed.WithLabelValues(g.name)
		for check, on := range map[string]bool{"limit": g.limitShadow, "queue": g.queueShadow} {
			value := 0.0
			if on {
				value = 1
			}
			m.shadow.WithLabelValues(check, g.name).Set(value)
		}
	}
}

// forget drops the series of policies that are no longer there. Requests under way can make
// some again, so it drops those of the time before, too.
func (m *metrics) forget(before []string, now *rules) {
	for _, name := range append(before, m.gone...) {
		if now.set.Named(name) != nil {
			continue
		}
		m.decisions.forget(name)
		for _, vec := range []*prometheus.MetricVec{m.shadowed.MetricVec, m.shadow.MetricVec} {
			vec.DeletePartialMatch(prometheus.Labels{"policy": name})
		}
	}
	m.gone = before
}
