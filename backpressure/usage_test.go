package backpressure

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

// TestUnusedQueue: requests are let through for minutes, and nobody ever uses the
// queue. That is said once, until the queue is used.
func TestUnusedQueue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		seen     Sample // before the requests
		requests bool
		maxJobs  int
		unused   bool
	}{
		"a mistyped name":                     {requests: true, maxJobs: 40, unused: true},
		"a mistyped name, no limit":           {requests: true, unused: true},
		"a new queue that nobody asks for":    {maxJobs: 40},
		"an empty queue with a worker":        {seen: Sample{Workers: 1}, requests: true, maxJobs: 40},
		"a queue that had a job once":         {seen: Sample{Pending: 1}, requests: true, maxJobs: 40},
		"a queue of which a worker had a job": {seen: Sample{Running: 1}, requests: true, maxJobs: 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				reg := prometheus.NewRegistry()
				limits := validLimits()
				limits.MaxPending = c.maxJobs
				f := &fakeQueue{admit: func(context.Context) (Admission, error) { return Admission{Admitted: true}, nil }}
				m := NewMonitor(validConfig(), limits, f, reg, slog.New(slog.NewTextHandler(&log, nil)))
				sample := func(s Sample) {
					f.set(s, nil)
					must(t, m.Sample(t.Context()))
				}
				gauge := func() bool { return metrictest.Value(t, reg, "refrakt_gate_queue_unused") == 1 }
				sample(c.seen)
				for range 6 {
					if m.Problem() != "" || gauge() {
						t.Fatal("unused too early")
					}
					for range 5 {
						if c.requests {
							see(m).Admit(t.Context(), Asker{Address: "ann"})
						}
					}
					sample(Sample{AgeKnown: true})
					after(time.Minute - time.Second)
				}
				after(10 * time.Second)
				if c.requests {
					see(m).Admit(t.Context(), Asker{Address: "ann"})
				}
				for range 3 {
					sample(Sample{AgeKnown: true})
				}
				if got := m.Problem() != ""; got != c.unused || gauge() != c.unused {
					t.Errorf("problem %q, gauge %v, want unused: %v", m.Problem(), gauge(), c.unused)
				}
				if n := strings.Count(log.String(), "looks unused"); (n == 1) != c.unused || n > 1 {
					t.Errorf("logged %d times:\n%s", n, &log)
				}
				sample(Sample{Workers: 1})
				if m.Problem() != "" || gauge() {
					t.Errorf("still unused with a worker: %q", m.Problem())
				}
			})
		})
	}
}
