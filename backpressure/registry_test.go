package backpressure

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// noted is a registerer that notes what is registered.
type noted struct {
	*prometheus.Registry

	all []prometheus.Collector
}

func (n *noted) Register(c prometheus.Collector) error {
	n.all = append(n.all, c)
	return n.Registry.Register(c)
}

func (n *noted) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := n.Register(c); err != nil {
			panic(err)
		}
	}
}

// TestMonitorsOfSeveralQueues: monitors share a registry under a label, and leave nothing behind. The optional series
// are there while the limits give them a meaning.
func TestMonitorsOfSeveralQueues(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	families := func() (names []string, metrics int) {
		all, err := reg.Gather()
		must(t, err)
		for _, f := range all {
			names, metrics = append(names, f.GetName()), metrics+len(f.GetMetric())
		}
		return names, metrics
	}
	optionals := []string{"refrakt_gate_queue_largest_share_jobs", "refrakt_gate_queue_share_limit_jobs", "refrakt_gate_queue_reserve_used_up"}
	watch := func(name string, l Limits) (*Monitor, *noted) {
		n := &noted{Registry: reg}
		return NewMonitor(validConfig(), l, nil, prometheus.WrapRegistererWith(prometheus.Labels{"queue": name}, n), slog.New(slog.DiscardHandler)), n
	}
	a, ofA := watch("a", validLimits())
	names, one := families()
	if slices.ContainsFunc(names, func(s string) bool { return slices.Contains(optionals, s) }) {
		t.Errorf("%v without a share and a reserve", names)
	}
	_, ofB := watch("b", Limits{MaxPending: 10, FairShare: 1, Reserve: 0.1})
	if names, both := families(); both != 2*one+len(optionals) || !slices.Contains(names, optionals[2]) {
		t.Errorf("%d series of two queues, %d of one: %v", both, one, names)
	}
	a.SetLimits(Limits{MaxPending: 10, FairShare: 1})
	if _, both := families(); both != 2*one+len(optionals)+2 {
		t.Errorf("%d series once a has a share too", both)
	}
	for _, n := range []*noted{ofA, ofB} {
		for _, c := range n.all {
			if !reg.Unregister(c) {
				t.Error("a collector can't be unregistered")
			}
		}
	}
	if names, left := families(); left != 0 {
		t.Errorf("%v are left", names)
	}
	watch("a", validLimits())
}
