package authz

import (
	"fmt"
	"log/slog"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// TestDecisionsAreThoseOfTheMetrics: Decisions has each series of the counter, before and after other rules.
func TestDecisionsAreThoseOfTheMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	const before = `policies: {old: {match: [/x], buckets: [{per: ip, burst: 1, rate: 1/d}]}}`
	const after = `policies: {new: {match: [/x], buckets: [{per: ip, burst: 1, rate: 1/d}]}}`
	s := New(withUsers(t), rulesOf(t, before, nil), quota.NewMemory(), Traces{}, reg, slog.New(slog.DiscardHandler))
	same := func() {
		t.Helper()
		want, got := make(map[string]float64), make(map[string]float64)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "refrakt_gate_decisions_total" { // labels are sorted by name
					want[fmt.Sprint(m.GetLabel()[0].GetValue(), m.GetLabel()[2].GetValue(), m.GetLabel()[1].GetValue())] = m.GetCounter().GetValue()
				}
			}
		}
		s.Decisions(func(policy, verdict, reason string, n float64) { got[fmt.Sprint(policy, verdict, reason)] = n })
		if !maps.Equal(got, want) || len(got) < 8 {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	ask := func() {
		t.Helper()
		for _, path := range []string{"/x", "/x", "/x", "/y"} {
			request(t, s, "GET", path, "203.0.113.1")
		}
	}
	same()
	ask()
	same()
	s.Use(rulesOf(t, after, nil))
	same()
	ask()
	same()
}
