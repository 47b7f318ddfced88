package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestJobsOfAFleet: three gates, 500 jobs of all kinds, the gate that counts killed in their midst, later all Redis
// connections of the others cut. Over all gates, the killed one's last scrape included, exactly what SAQ did is counted.
func TestJobsOfAFleet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	gates := make([]*e2e.Gate, 3)
	for i := range gates {
		gates[i] = e2e.StartGate(t, map[string]string{"QUEUE_URL": server.URL(), "JOB_SOURCES": "api,assistant"})
	}
	leader(t, gates)

	work := proctest.Start(t, proctest.Command{
		Name: "workload", Path: e2e.Tool(t, "python"), Env: []string{"PYTHONUNBUFFERED=1"},
		Args: []string{filepath.Join(e2e.Root(), "jobmetrics/testdata/saq_workload.py"), server.URL(), "default", "500", "25"},
	})
	enqueued := func(gates []*e2e.Gate) float64 { return sum(t, gates)["refrakt_job_enqueued_total"] }
	polltest.Until(t, time.Minute, "a third of the jobs", func() error { return atLeast(enqueued(gates), 170) })

	// What a killed gate counted after its last scrape is lost, so nothing happens between the two.
	work.Signal(t, syscall.SIGSTOP)
	killed := leader(t, gates)
	var last e2e.Metrics
	since := time.Now()
	polltest.Until(t, time.Minute, "the leader to have counted all that happened", func() error {
		before := last
		last = jobSeries(killed.Metrics(t))
		if !maps.Equal(before, last) {
			since = time.Now()
		}
		// Its slowest step comes once a second.
		if time.Since(since) < 3*time.Second {
			return fmt.Errorf("it may still count")
		}
		return nil
	})
	killed.Kill(t)
	work.Signal(t, syscall.SIGCONT)
	rest := without(gates, killed)
	polltest.Until(t, time.Minute, "two thirds of the jobs", func() error { return atLeast(enqueued(rest)+last["refrakt_job_enqueued_total"], 340) })
	cutFrom := time.Now()
	if n := cut(t, client.ClientList(t.Context()).Val(), func(id string) error { return client.ClientKillByFilter(t.Context(), "ID", id).Err() }); n < 4 {
		t.Errorf("%d connections cut, want at least a subscription and one more of each of two gates", n)
	}
	for _, g := range rest {
		g.WaitLog(t, regexp.MustCompile(`subscription to job statuses works again`))
	}
	cutUntil := time.Now()

	var want struct {
		Enqueued, Transitions map[string]float64
		Waits, Runs           float64
		Restarts              []int64
		WaitSeconds           float64 `json:"wait_seconds"`
		RunSeconds            float64 `json:"run_seconds"`
	}
	account := work.WaitLog(t, regexp.MustCompile(`(?m)^\{.*\}$`))[0]
	decoder := json.NewDecoder(bytes.NewReader([]byte(account)))
	if err := decoder.Decode(&want); err != nil {
		t.Fatalf("read what SAQ did: %v in %s", err, account)
	}
	// SAQ may keep no time at all of a restart of which no event could arrive.
	missed := 0.
	for _, at := range want.Restarts {
		if at >= cutFrom.UnixMilli()-100 && at <= cutUntil.UnixMilli()+100 {
			missed++
		}
	}
	t.Logf("%v restarts while the connections were cut", missed)
	exact := e2e.Metrics{"refrakt_job_run_duration_seconds_count": want.Runs}
	for source, n := range want.Enqueued {
		if source == "cron" {
			source = "other"
		}
		exact[fmt.Sprintf(`refrakt_job_enqueued_total{source=%q}`, source)] = n
	}
	for change, n := range want.Transitions {
		from, to, _ := strings.Cut(change, ">")
		exact[fmt.Sprintf(`refrakt_job_status_transitions_total{from_status=%q,to_status=%q}`, from, to)] = n
	}
	var got e2e.Metrics
	polltest.Until(t, time.Minute, "the sums to be what SAQ did", func() error {
		got = add(sum(t, rest), last)
		for series, n := range exact {
			if got[series] != n {
				return fmt.Errorf("%s is %v, want %v; all: %v", series, got[series], n, got)
			}
		}
		if waits := got["refrakt_job_queue_wait_seconds_count"]; waits > want.Waits || waits < want.Waits-missed {
			return fmt.Errorf("%v waits, want %v, less at most %v", waits, want.Waits, missed)
		}
		return nil
	})
	for series, n := range got {
		if _, ok := exact[series]; !ok && n != 0 && strings.Contains(series, "{") {
			t.Errorf("%s is %v, and SAQ did nothing of the kind", series, n)
		}
	}
	for series, seconds := range map[string]float64{
		"refrakt_job_queue_wait_seconds_sum": want.WaitSeconds, "refrakt_job_run_duration_seconds_sum": want.RunSeconds,
	} {
		t.Logf("%s: counted %.3f, by the payloads %.3f", series, got[series], seconds)
		// If a payload was changed before it was read, the times of an attempt are those at which the events arrived.
		if math.Abs(got[series]-seconds) > 0.02*want.Waits {
			t.Errorf("%s is %.3f, want %.3f", series, got[series], seconds)
		}
	}
}

// TestJobCounterIsHandedOver: a gate that is told to stop gives the counting away at once, and can be scraped until its
// drain is over. A gate whose metrics nobody can read never counts.
func TestJobCounterIsHandedOver(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	e2e.StartGate(t, map[string]string{"QUEUE_URL": server.URL(), "PROMETHEUS_ENABLED": "false"})
	settings := map[string]string{"QUEUE_URL": server.URL(), "SHUTDOWN_DRAIN": "15s"}
	first := e2e.StartGate(t, settings)
	leader(t, []*e2e.Gate{first})
	second := e2e.StartGate(t, settings)

	first.Signal(t, syscall.SIGTERM)
	polltest.Until(t, 10*time.Second, "the second gate to count while the first still drains", func() error {
		if leads := second.Metrics(t)["refrakt_gate_job_counter_leader"]; leads != 1 {
			return fmt.Errorf("its leader gauge is %v", leads)
		}
		return nil
	})
	if leads := first.Metrics(t)["refrakt_gate_job_counter_leader"]; leads != 0 {
		t.Errorf("the first gate says %v, want 0", leads)
	}
	first.Kill(t)
}

// leader waits until just one gate counts the jobs, and returns it.
func leader(t *testing.T, gates []*e2e.Gate) (leads *e2e.Gate) {
	t.Helper()
	polltest.Until(t, 30*time.Second, "one leader", func() error {
		n := 0
		for _, g := range gates {
			if g.Metrics(t)["refrakt_gate_job_counter_leader"] == 1 {
				leads = g
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("%d gates say that they count", n)
		}
		return nil
	})
	return leads
}

// sum adds up the job series of all gates.
func sum(t *testing.T, gates []*e2e.Gate) e2e.Metrics {
	t.Helper()
	all := e2e.Metrics{}
	for _, g := range gates {
		all = add(all, jobSeries(g.Metrics(t)))
	}
	return all
}

// jobSeries are the series about jobs, and of counters with labels also their sum.
func jobSeries(m e2e.Metrics) e2e.Metrics {
	jobs := e2e.Metrics{}
	for series, v := range m {
		if !strings.HasPrefix(series, "refrakt_job_") {
			continue
		}
		jobs[series] = v
		if name, _, labelled := strings.Cut(series, "{"); labelled {
			jobs[name] += v
		}
	}
	return jobs
}

func add(a, b e2e.Metrics) e2e.Metrics {
	total := maps.Clone(a)
	for series, v := range b {
		total[series] += v
	}
	return total
}

func without(gates []*e2e.Gate, gone *e2e.Gate) []*e2e.Gate {
	var rest []*e2e.Gate
	for _, g := range gates {
		if g != gone {
			rest = append(rest, g)
		}
	}
	return rest
}

// cut ends the connections that gates have, from Redis's side, and returns how many there were.
func cut(t *testing.T, list string, kill func(id string) error) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(list) {
		if id := regexp.MustCompile(`^id=(\d+) .* name=refrakt-gate `).FindStringSubmatch(line); id != nil {
			n++
			if err := kill(id[1]); err != nil {
				t.Errorf("cut connection %s: %v", id[1], err)
			}
		}
	}
	return n
}

func atLeast(got, want float64) error {
	if got < want {
		return fmt.Errorf("%v, want at least %v", got, want)
	}
	return nil
}
