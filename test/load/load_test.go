//go:build load

package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) {
	e2e.Race = false // latencies are measured
	os.Exit(e2e.Main(m))
}

// TestLoad plays the phases, writes the report, and fails where the run is not what it must be.
func TestLoad(t *testing.T) {
	dir := os.Getenv("LOAD_REPORT_DIR")
	if dir == "" {
		dir = filepath.Join(e2e.Root(), "test", "load", "report")
	}
	var run *Run
	// On its own, so that the logs of all processes are shown when something broke, and not when an expectation failed.
	t.Run("traffic", func(t *testing.T) { run = newStage(t).play(t) })
	if run == nil {
		t.FailNow()
	}
	checks := Judge(run)
	if err := WriteReport(dir, run, checks); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, c := range checks {
		if !c.OK {
			failed++
			t.Errorf("%s: %s\n  wanted: %s\n  seen:   %s", c.where(), c.What, c.Want, c.Seen)
		}
	}
	t.Logf("%d of %d expectations met; the report: %s", len(checks)-failed, len(checks), filepath.Join(dir, "report.md"))
}

// stage is everything that runs.
type stage struct {
	*e2e.Stack

	prometheus *e2e.Prometheus
	workers    []*proctest.Process
	depth      depthWatch
	between    int // requests sent between the phases
	run        *Run
}

func newStage(t *testing.T) *stage {
	s := &stage{Stack: e2e.Start(t, e2e.Options{Gates: Gates, OneEnvoy: true, Settings: Settings()})}
	s.prometheus = e2e.StartPrometheus(t, scrapeConfig(t, s.Gates))
	for range Workers {
		w := s.StartWorker(t, Concurrency)
		s.workers = append(s.workers, w)
		// One that is stopped would not hear that it shall end. It runs before the harness ends it.
		t.Cleanup(func() { w.Signal(t, syscall.SIGCONT) })
	}
	polltest.Until(t, time.Minute, "both gates to be scraped", func() error {
		up, err := s.prometheus.Query(`up{job="refrakt-gate"} == 1`)
		if err == nil && len(up) != Gates {
			err = fmt.Errorf("%d gates are up", len(up))
		}
		return err
	})
	s.depth.watch(t, s.Stack)
	s.run = &Run{Start: time.Now(), CPUs: runtime.NumCPU()}
	return s
}

// scrapeConfig is a copy of deploy/prometheus with the addresses of these gates, and nothing else changed.
func scrapeConfig(t *testing.T, gates []*e2e.Gate) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(e2e.Root(), "deploy", "prometheus"))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prometheus.yml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const address = `"gate:9464"`
	if n := strings.Count(string(text), address); n != 1 {
		t.Fatalf("prometheus.yml: %s is in it %d times, want once", address, n)
	}
	targets := make([]string, 0, len(gates))
	for _, g := range gates {
		targets = append(targets, strconv.Quote(g.Telemetry))
	}
	changed := strings.Replace(string(text), address, strings.Join(targets, ", "), 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (s *stage) play(t *testing.T) *Run {
	for _, p := range Plan() {
		switch p.Name {
		case Stall:
			s.stopWorkers(t)
		case Recovery:
			for _, w := range s.workers {
				w.Signal(t, syscall.SIGCONT)
			}
		default:
			s.settle(t)
		}
		s.run.Phases = append(s.run.Phases, s.phase(t, p))
	}
	s.run.End = s.run.Phases[len(s.run.Phases)-1].End
	s.settle(t)
	s.countJobs(t)
	s.askPrometheus(t)
	s.replay(t)
	return s.run
}

// settle waits until the queue is empty.
func (s *stage) settle(t *testing.T) {
	t.Helper()
	polltest.Until(t, time.Minute, "the queue to be empty", func() error {
		if waiting, running := s.length(t, "queued"), s.length(t, "active"); waiting+running > 0 {
			return fmt.Errorf("%d jobs wait, %d run", waiting, running)
		}
		return nil
	})
}

// length is that of one of SAQ's lists.
func (s *stage) length(t *testing.T, list string) int {
	t.Helper()
	n, err := s.Client.LLen(t.Context(), "saq:default:"+list).Result()
	if err != nil {
		t.Fatalf("read the queue: %v", err)
	}
	return int(n)
}

// stopWorkers stops them at once, in the middle of their jobs, and fills the queue up to its limit, by requests as all
// others are.
func (s *stage) stopWorkers(t *testing.T) {
	t.Helper()
	for _, w := range s.workers {
		w.Signal(t, syscall.SIGSTOP)
	}
	polltest.Until(t, time.Minute, "the queue to be full, and both gates to know it", func() error {
		if n := s.length(t, "queued"); n < maxPending {
			s.between++
			r := s.PostJSON(t, "/run", Request{Policy: policyRun, Seconds: fillSeconds}.Body(), fmt.Sprintf("CF-Connecting-IP: 10.9.0.%d", n))
			if r.Status == http.StatusAccepted {
				s.run.Jobs.Extra++
			}
			return fmt.Errorf("%d jobs waited", n)
		}
		for _, g := range s.Gates {
			if g.Metrics(t)[`refrakt_gate_queue_state{state="full"}`] != 1 {
				return errors.New("a gate has not seen it yet")
			}
		}
		return nil
	})
	s.run.Jobs.RunningWhenStalled = s.length(t, "active")
}

// phase plays one phase.
func (s *stage) phase(t *testing.T, p Phase) Played {
	t.Helper()
	before, fallbacks := s.decided(t)
	s.depth.reset()
	played := Played{Phase: p, Start: time.Now()}

	attacker := vegeta.NewAttacker(vegeta.Workers(Users), vegeta.MaxWorkers(Users), vegeta.Redirects(vegeta.NoFollow))
	defer attacker.Stop()
	results := attacker.Attack(s.targets(p), p, 0, "")
	progress := time.NewTicker(5 * time.Second)
	defer progress.Stop()
	tooLong := time.NewTimer(2*p.Duration() + time.Minute)
	defer tooLong.Stop()
	fmt.Fprintf(t.Output(), "%s: %v, %d requests. %s\n", p.Name, p.Duration(), p.Requests, p.What)
	for open := true; open; {
		select {
		case r, ok := <-results:
			if open = ok; ok {
				played.Answers = append(played.Answers, answer(t, p, r))
			}
		case <-progress.C:
			s.tell(t, played)
		case <-tooLong.C:
			t.Fatalf("%s: %d of %d requests were answered in twice the time", p.Name, len(played.Answers), p.Requests)
		}
	}
	s.tell(t, played)
	for _, a := range played.Answers {
		if a.Done.After(played.End) {
			played.End = a.Done
		}
	}
	played.MinDepth, played.MaxDepth = s.depth.seen()
	after, fallbacksAfter := s.decided(t)
	played.Fallbacks = fallbacksAfter - fallbacks
	played.Decisions = map[Decision]int{}
	for d := range after {
		played.Decisions[d] = after[d] - before[d]
	}
	return played
}

// targets asks what the phase's users ask, in their order. Each user comes from an address of its own: the peer of
// Envoy, loopback, is a trusted proxy, so the gate believes the header.
func (s *stage) targets(p Phase) vegeta.Targeter {
	var mu sync.Mutex
	n := 0
	network := map[string]int{Normal: 1, Burst: 2, Fill: 3, Stall: 4, Recovery: 5}[p.Name]
	return func(target *vegeta.Target) error {
		mu.Lock()
		k := n
		n++
		mu.Unlock()
		r := p.Ask(k)
		target.Method = http.MethodPost
		target.URL = "http://" + s.Addr + r.Path(p.Name, k)
		target.Body = []byte(r.Body())
		target.Header = http.Header{
			"Content-Type":     {"application/json"},
			"Cf-Connecting-Ip": {fmt.Sprintf("10.%d.0.%d", network, r.User+1)},
		}
		return nil
	}
}

// answer reads one result of vegeta's.
func answer(t *testing.T, p Phase, r *vegeta.Result) Answer {
	t.Helper()
	target, err := url.Parse(r.URL)
	if err != nil {
		t.Fatalf("result of an unknown request: %v", err)
	}
	n, err := strconv.Atoi(target.Query().Get("n"))
	if err != nil {
		t.Fatalf("result of an unknown request: %v", err)
	}
	a := Answer{Request: p.Ask(n), Sent: r.Timestamp, Done: r.Timestamp.Add(r.Latency), Code: int(r.Code)}
	if !a.admitted() {
		a.Error = r.Error
		var body struct {
			Detail string `json:"detail"`
		}
		if json.Unmarshal(r.Body, &body) == nil {
			a.Detail = body.Detail
		}
	}
	if v := r.Headers.Get("Retry-After"); v != "" {
		if a.RetryAfter, err = strconv.Atoi(v); err != nil {
			a.RetryAfter = -1
		}
	}
	return a
}

// tell is a line of progress.
func (s *stage) tell(t *testing.T, p Played) {
	t.Helper()
	elapsed := time.Since(p.Start)
	n := codes(p.Answers)
	fmt.Fprintf(t.Output(), "%-8s %4.0f s  %5.1f/s  %s  depth %d, oldest %.0f s, alerts: %s\n", p.Name, elapsed.Seconds(),
		float64(len(p.Answers))/elapsed.Seconds(), join(sorted(n), " ", func(c int) string { return fmt.Sprintf("%d×%d", n[c], c) }),
		s.length(t, "queued"), s.value(t, "max(refrakt_queue_oldest_pending_seconds)"), names(s.firing(t)))
}

func (s *stage) value(t *testing.T, expr string) float64 {
	t.Helper()
	v, err := s.prometheus.Query(expr)
	if err != nil {
		t.Fatal(err)
	}
	if len(v) != 1 {
		return math.NaN()
	}
	return float64(v[0].Value)
}

const firing = `ALERTS{alertstate="firing"}`

func (s *stage) firing(t *testing.T) (alerts []string) {
	t.Helper()
	v, err := s.prometheus.Query("count by (alertname) (" + firing + ")")
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range v {
		alerts = append(alerts, string(sample.Metric["alertname"]))
	}
	return alerts
}

// decided is what all gates have decided so far.
func (s *stage) decided(t *testing.T) (decisions map[Decision]int, fallbacks int) {
	t.Helper()
	decisions = map[Decision]int{}
	for _, g := range s.Gates {
		for name, value := range g.Metrics(t) {
			if family, labels := split(name); family == "refrakt_gate_decisions_total" {
				decisions[Decision{labels["policy"], labels["reason"]}] += int(value)
			} else if family == "refrakt_gate_fallback_total" {
				fallbacks += int(value)
			}
		}
	}
	return decisions, fallbacks
}

// split takes the name of a series apart.
func split(name string) (family string, labels map[string]string) {
	family, rest, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
	labels = map[string]string{}
	for pair := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(pair, "=")
		labels[k] = strings.Trim(v, `"`)
	}
	return family, labels
}

// countJobs reads the job metrics, once all jobs are counted that were accepted, or a while later.
func (s *stage) countJobs(t *testing.T) {
	t.Helper()
	j := &s.run.Jobs
	accepted := j.Extra
	for _, p := range s.run.Phases {
		accepted += count(p.Answers, Answer.job)
	}
	for deadline := time.Now().Add(15 * time.Second); ; {
		j.Enqueued, j.Started, j.Ended, j.Failed, j.Waits = map[string]int{}, 0, 0, 0, 0
		total := 0
		for _, g := range s.Gates {
			for name, v := range g.Metrics(t) {
				family, labels := split(name)
				n := int(v)
				switch {
				case family == "refrakt_job_enqueued_total":
					j.Enqueued[labels["source"]] += n
					total += n
				case family == "refrakt_job_queue_wait_seconds_count":
					j.Waits += n
				case family != "refrakt_job_status_transitions_total":
				case labels["to_status"] == "active":
					j.Started += n
				case labels["to_status"] == "complete":
					j.Ended += n
				case labels["to_status"] == "failed":
					j.Ended += n
					j.Failed += n
				}
				if family == "refrakt_gate_build_info" {
					s.run.Version = labels["version"]
				}
			}
		}
		if total == accepted && j.Started == total && j.Ended == total && j.Waits == total || time.Now().After(deadline) {
			break
		}
		e2e.Pass(t, time.Second)
	}
	j.PendingAtEnd, j.RunningAtEnd = s.length(t, "queued"), s.length(t, "active")
}

// replay has Envoy's access log decided again, by the same limits.
func (s *stage) replay(t *testing.T) {
	t.Helper()
	s.run.Decided, _ = s.decided(t)
	sent := s.between
	for _, p := range s.run.Phases {
		sent += len(p.Answers)
	}
	polltest.Until(t, 10*time.Second, "all requests to be in the access log", func() error {
		if n := strings.Count(s.Log(), `"request_id"`); n != sent {
			return fmt.Errorf("%d of %d", n, sent)
		}
		return nil
	})
	file := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(file, []byte(s.Log()), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := Settings()
	settings["QUEUE_URL"] = s.QueueURL
	code, out := e2e.RunGate(t, settings, "replay", "-o", "json", file)
	if err := json.Unmarshal([]byte(out), &s.run.Replay); code != 0 || err != nil {
		t.Fatalf("replay: exit code %d, %v\n%s", code, err, out)
	}
}

// askPrometheus gets what it has of the whole run.
func (s *stage) askPrometheus(t *testing.T) {
	t.Helper()
	s.run.Depth = s.series(t, "max(refrakt_queue_pending_jobs)")
	s.run.Age = s.series(t, "max(refrakt_queue_oldest_pending_seconds)")
	s.run.LiveWorkers = s.series(t, "max(refrakt_gate_queue_live_workers)")
	fired, err := s.prometheus.QueryRange("count by (alertname) ("+firing+")", s.run.Start, s.run.End, Step)
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range fired {
		var last *Span
		for _, sample := range series.Values {
			at := sample.Timestamp.Time()
			if last == nil || at.Sub(last.To) > Step {
				s.run.Firing = append(s.run.Firing, Span{Alert: string(series.Metric["alertname"]), From: at})
				last = &s.run.Firing[len(s.run.Firing)-1]
			}
			last.To = at
		}
	}
}

func (s *stage) series(t *testing.T, expr string) (points []Point) {
	t.Helper()
	m, err := s.prometheus.QueryRange(expr, s.run.Start, s.run.End, Step)
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range m {
		for _, sample := range series.Values {
			points = append(points, Point{sample.Timestamp.Time(), float64(sample.Value)})
		}
	}
	return points
}

// depthWatch sees the queue's depth in Redis, ten times a second.
type depthWatch struct {
	mu       sync.Mutex
	any      bool
	min, max int
}

func (d *depthWatch) watch(t *testing.T, s *e2e.Stack) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if n, err := s.Client.LLen(ctx, "saq:default:queued").Result(); err == nil {
				d.add(int(n))
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

func (d *depthWatch) add(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.any {
		d.any, d.min, d.max = true, n, n
	}
	d.min, d.max = min(d.min, n), max(d.max, n)
}

func (d *depthWatch) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.any = false
}

func (d *depthWatch) seen() (least, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.min, d.max
}
