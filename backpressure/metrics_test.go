package backpressure

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestMetricsBeforeTheFirstSample(t *testing.T) {
	t.Parallel()
	wantMetrics(t, nil, `
refrakt_gate_breaker_open{breaker="queue"} 0
refrakt_gate_queue_drain_jobs_per_second NaN
refrakt_gate_queue_errors_total{op="admit"} 0
refrakt_gate_queue_errors_total{op="sample"} 0
refrakt_gate_queue_limit_age_seconds 600
refrakt_gate_queue_limit_pending_jobs 40
refrakt_gate_queue_live_workers NaN
refrakt_gate_queue_sample_age_seconds NaN
refrakt_gate_queue_state{state="full"} 0
refrakt_gate_queue_state{state="ok"} 0
refrakt_gate_queue_state{state="slow"} 0
refrakt_gate_queue_state{state="unknown"} 1
refrakt_gate_queue_unused 0
refrakt_queue_oldest_pending_seconds NaN
refrakt_queue_pending_jobs NaN
refrakt_queue_running_jobs NaN
`)
}

func TestMetricsOfASample(t *testing.T) {
	t.Parallel()
	s := &snapshot{
		Sample: Sample{Pending: 5, Running: 2, Workers: 3, OldestAge: 610500 * time.Millisecond, AgeKnown: true},
		flow:   flow{leaving: 0.5, perSecond: 7},
	}
	wantMetrics(t, s, `
refrakt_gate_breaker_open{breaker="queue"} 0
refrakt_gate_queue_drain_jobs_per_second 0.5
refrakt_gate_queue_errors_total{op="admit"} 0
refrakt_gate_queue_errors_total{op="sample"} 0
refrakt_gate_queue_limit_age_seconds 600
refrakt_gate_queue_limit_pending_jobs 40
refrakt_gate_queue_live_workers 3
refrakt_gate_queue_state{state="full"} 0
refrakt_gate_queue_state{state="ok"} 0
refrakt_gate_queue_state{state="slow"} 1
refrakt_gate_queue_state{state="unknown"} 0
refrakt_gate_queue_unused 0
refrakt_queue_oldest_pending_seconds 610.5
refrakt_queue_pending_jobs 5
refrakt_queue_running_jobs 2
`)
}

func TestMetricsOfAnUnknownAge(t *testing.T) {
	t.Parallel()
	wantMetrics(t, &snapshot{Sample: Sample{Pending: 5}}, `
refrakt_gate_breaker_open{breaker="queue"} 0
refrakt_gate_queue_drain_jobs_per_second 0
refrakt_gate_queue_errors_total{op="admit"} 0
refrakt_gate_queue_errors_total{op="sample"} 0
refrakt_gate_queue_limit_age_seconds 600
refrakt_gate_queue_limit_pending_jobs 40
refrakt_gate_queue_live_workers 0
refrakt_gate_queue_state{state="full"} 0
refrakt_gate_queue_state{state="ok"} 0
refrakt_gate_queue_state{state="slow"} 0
refrakt_gate_queue_state{state="unknown"} 1
refrakt_gate_queue_unused 0
refrakt_queue_oldest_pending_seconds NaN
refrakt_queue_pending_jobs 5
refrakt_queue_running_jobs 0
`)
}

func TestMetricsLint(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	NewMonitor(validConfig(), validLimits(), nil, reg, slog.New(slog.DiscardHandler))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// wantMetrics compares the series, less the sample's age, which moves.
func wantMetrics(t *testing.T, s *snapshot, want string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := NewMonitor(validConfig(), validLimits(), nil, reg, slog.New(slog.DiscardHandler))
	if s != nil {
		s.at = time.Now()
		s.applyThresholds(m.inForce.Load(), nil)
		m.newest.Store(s)
		m.publish()
	}
	pending, age := m.Depth()
	for name, got := range map[string]float64{"refrakt_queue_pending_jobs": pending, "refrakt_queue_oldest_pending_seconds": age} {
		if line := fmt.Sprintf("\n%s %v\n", name, got); !strings.Contains(want, line) {
			t.Errorf("Depth says%swant\n%s", line, want)
		}
	}
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	var lines []string
	for line := range strings.Lines(answer.Body.String()) {
		moving := s != nil && strings.HasPrefix(line, "refrakt_gate_queue_sample_age_seconds")
		if !strings.HasPrefix(line, "#") && !moving {
			lines = append(lines, line)
		}
	}
	if got := strings.Join(lines, ""); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("series\n%s\nwant\n%s", got, want)
	}
}
