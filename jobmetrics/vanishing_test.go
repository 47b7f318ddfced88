package jobmetrics

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/internal/saqtest"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// TestJobsThatVanish: an event proves no job, so a job of which SAQ keeps nothing
// (ttl=-1) is counted only if the gate looks while the job waits or runs. Jobs that
// take half a second are all counted. The log has the share of shorter ones, which
// docs/metrics.md tells.
func TestJobsThatVanish(t *testing.T) {
	t.Parallel()
	const jobs, perSecond = 200, 20
	for _, milliseconds := range []int{0, 20, 50, 100, 500} {
		t.Run(fmt.Sprint(milliseconds, " ms"), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			counter := startCounter(t, server.Client(t))
			polltest.True(t, "counting", func() bool {
				return counter.value(t, "refrakt_gate_job_counter_leader") == 1 && counter.value(t, "refrakt_gate_job_events_subscribed") == 1
			})
			cmd := exec.CommandContext(t.Context(), saqtest.Python(t), "testdata/saq_vanishing.py", server.URL(), jobsQueue,
				fmt.Sprint(jobs), fmt.Sprint(milliseconds), fmt.Sprint(perSecond))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("run SAQ: %v\n%s", err, &stderr)
			}
			// SAQ's sweeper, which runs once when a worker starts, may abort a job that is just taken.
			ended := func() (n float64) {
				for transition, count := range counter.counted(t).Transitions {
					if _, to, _ := strings.Cut(transition, ">"); job.Status(to).Final() {
						n += count
					}
				}
				return n
			}
			enqueued := func() float64 { return counter.value(t, "refrakt_job_enqueued_total", "source", "unknown") }
			polltest.True(t, "as many ends as jobs counted", func() bool { return ended() == enqueued() })
			t.Logf("%d ms: %.1f %% of %d jobs counted", milliseconds, 100*enqueued()/jobs, jobs)
			if milliseconds >= 500 && enqueued() != jobs {
				t.Errorf("%v of %d jobs of %d ms counted, want all", enqueued(), jobs, milliseconds)
			}
		})
	}
}
