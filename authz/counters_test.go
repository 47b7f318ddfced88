package authz

import (
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

// TestCounters: a child is the same, however often and by how many it is looked up.
func TestCounters(t *testing.T) {
	reg := prometheus.NewRegistry()
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"a", "b"})
	reg.MustRegister(vec)
	c := newCounters(vec)
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		all.Go(func() {
			<-start
			for i := range 1000 {
				c.WithLabelValues(fmt.Sprint(i%101), fmt.Sprint(i%2)).Inc()
			}
		})
	}
	close(start)
	all.Wait()
	sum := 0.0
	for a := range 101 {
		for b := range 2 {
			sum += metrictest.Value(t, reg, "c", "a", fmt.Sprint(a), "b", fmt.Sprint(b))
		}
	}
	if sum != 8000 {
		t.Errorf("counted %v, want 8000", sum)
	}
	if allocs := testing.AllocsPerRun(100, func() { c.WithLabelValues("1", "1").Inc() }); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
