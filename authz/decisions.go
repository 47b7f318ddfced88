package authz

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// decisionCounters are the counters of decisions. They are also kept by policy, because to
// read them by the registry costs many times as much.
type decisionCounters struct {
	vec *prometheus.CounterVec

	mu sync.Mutex
	of map[string][]decisionCounter
}

type decisionCounter struct {
	verdict, reason string
	prometheus.Counter
}

func newDecisionCounters(vec *prometheus.CounterVec) *decisionCounters {
	return &decisionCounters{vec: vec, of: make(map[string][]decisionCounter)}
}

// get returns the counter of a kind of decision. The first call for a kind makes the series.
func (c *decisionCounters) get(policy, verdict string, reason Reason) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.of[policy] {
		if known.verdict == verdict && known.reason == string(reason) {
			return known.Counter
		}
	}
	counter := c.vec.WithLabelValues(policy, verdict, string(reason))
	c.of[policy] = append(c.of[policy], decisionCounter{verdict, string(reason), counter})
	return counter
}

// forget drops the series of a policy.
func (c *decisionCounters) forget(policy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.of, policy)
	c.vec.DeletePartialMatch(prometheus.Labels{"policy": policy})
}

// Decisions calls each with every series of refrakt_gate_decisions_total, in no order. It
// may be called at any time; each must not call the server.
func (s *Server) Decisions(each func(policy, verdict, reason string, n float64)) {
	c := s.metrics.decisions
	c.mu.Lock()
	defer c.mu.Unlock()
	for policy, counters := range c.of {
		for _, counter := range counters {
			var m dto.Metric
			if err := counter.Write(&m); err == nil { // a counter of the library never returns one
				each(policy, counter.verdict, counter.reason, m.GetCounter().GetValue())
			}
		}
	}
}
