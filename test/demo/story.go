package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const (
	burst      = 3
	maxPending = 5
	chats      = 2 // requests to /assistant that a caller can send at once
	workers    = 4
	limited    = `{"detail":"Too Many Requests"}`
	atShare    = `{"detail":"Too many of your jobs wait in the queue. Please retry later."}`

	// policies guard the example API. The story changes the queue and the burst of /run.
	policies = `queues:
  default: %s
policies:
  run:
    match: ["/run", "/run/"]
    queue: default
    becomes_job: true
    buckets: [{per: ip, burst: %d, rate: 30/m}]
  assistant:
    match: ["/assistant", "/assistant/"]
    queue: default
    buckets: [{per: ip, burst: %d, rate: 6/m}]
`
	// With fair_share: 1 a caller that is alone may have half of the queue.
	sharedPending = 8
	share         = sharedPending / 2
)

// story is the whole story: admitted, limited, queue full, recovered, shared, explained. Every answer is compared with what
// it must be.
type story struct {
	*e2e.Stack

	p        *program
	settings map[string]string // of the gate, besides QUEUE_URL
	worker   *proctest.Process
	wrong    int
}

func tellStory(p *program) {
	p.tell("Starting Redis, the example API, a SAQ worker, the gate and Envoy …")
	s := &story{p: p, settings: map[string]string{
		"POLICY_FILE":           filepath.Join(p.TempDir(), "policies.yaml"),
		"QUEUE_SAMPLE_INTERVAL": "200ms", "PROMETHEUS_QUEUE_POLL_INTERVAL": "200ms",
	}}
	s.writePolicies(fmt.Sprintf("{max_pending: %d}", maxPending), burst)
	s.Stack = e2e.Start(p, e2e.Options{Settings: s.settings})
	s.worker = s.StartWorker(p, workers)
	s.limit()
	s.shed()
	s.recover()
	s.share()
	s.count()
	s.explain()
	if s.wrong > 0 {
		p.Fatalf("%d answers were not as expected", s.wrong)
	}
	p.tell("\nEvery answer was as expected.")
}

func (s *story) limit() {
	s.p.tell("\nOne caller may start %d jobs at once (burst: %d).", burst, burst)
	for range burst {
		s.ask("POST", "/run", "203.0.113.1", 202)
	}
	r := s.ask("POST", "/run", "203.0.113.1", 429)
	if r.Body != limited {
		s.complain("expected the body %s, got %s", limited, r.Body)
	}
	wait := s.retryAfter(r)
	s.p.tell("\nOther callers and other routes are not affected.")
	s.ask("POST", "/run", "203.0.113.2", 202)
	s.ask("GET", "/ping", "203.0.113.1", 200)
	s.p.tell("\nThe caller waits for %v, as Retry-After says.", wait)
	e2e.Pass(s.p, wait)
	s.ask("POST", "/run", "203.0.113.1", 202)
}

func (s *story) shed() {
	s.waitQueue(0)
	s.worker.Stop(s.p)
	s.waitQueue(0)
	s.p.tell("\nThe worker is stopped, so jobs wait, up to max_pending: %d.", maxPending)
	for n := range maxPending {
		s.ask("POST", "/run", fmt.Sprint("203.0.113.", 10+n), 202)
	}
	s.waitQueue(maxPending)
	s.p.tell("\nThe queue is full: every caller gets 503 from the two routes that start jobs. /ping still answers.")
	for _, path := range []string{"/run", "/assistant"} {
		s.retryAfter(s.ask("POST", path, "203.0.113.20", 503))
	}
	s.ask("GET", "/ping", "203.0.113.20", 200)
}

func (s *story) recover() {
	s.p.tell("\nThe worker is started again and drains the queue.")
	s.worker = s.StartWorker(s.p, workers)
	s.waitQueue(0)
	s.ask("POST", "/run", "203.0.113.20", 202)
	s.ask("POST", "/assistant", "203.0.113.20", 200)
}

// share plays fair shares, which another policy file brings.
func (s *story) share() {
	s.waitQueue(0)
	s.worker.Stop(s.p)
	s.waitQueue(0)
	queue := fmt.Sprintf("{max_pending: %d, fair_share: 1}", sharedPending)
	s.p.tell("\nThe worker is stopped again, and the policy file is changed: %s. The gate takes it without a restart.", queue)
	s.writePolicies(queue, 100)
	polltest.Until(s.p, 30*time.Second, "the gate to take the policy file", func() error {
		if seen := s.Gates[0].Metrics(s.p)[`refrakt_gate_queue_share_limit_jobs{queue="default"}`]; seen != sharedPending {
			return fmt.Errorf("the share is %g", seen)
		}
		return nil
	})
	s.p.tell("\nA greedy caller gets half of the queue, and no more.")
	const greedy = "203.0.113.66"
	for range share {
		s.ask("POST", "/run", greedy, 202)
	}
	for range 2 {
		r := s.ask("POST", "/run", greedy, 429)
		if r.Body != atShare {
			s.complain("expected the body %s, got %s", atShare, r.Body)
		}
		s.retryAfter(r)
	}
	s.p.tell("\nOthers come through at once.")
	for n := range 3 {
		s.ask("POST", "/run", fmt.Sprint("203.0.113.", 30+n), 202)
	}
	s.p.tell("\nA worker drains the queue, and the greedy caller is let in again.")
	s.worker = s.StartWorker(s.p, workers)
	s.waitQueue(0)
	s.ask("POST", "/run", greedy, 202)
}

// writePolicies writes the policy file as a whole.
func (s *story) writePolicies(queue string, burst int) {
	text, file := fmt.Sprintf(policies, queue, burst, chats), s.settings["POLICY_FILE"]
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		s.p.Fatalf("write the policy file: %v", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		s.p.Fatalf("write the policy file: %v", err)
	}
}

func (s *story) count() {
	s.p.tell("\nWhat the gate counted:")
	metrics := s.Gates[0].Metrics(s.p)
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		if strings.HasPrefix(name, "refrakt_gate_decisions_total{") && metrics[name] > 0 {
			s.p.tell("  %s %g", name, metrics[name])
		}
	}
}

// explain asks what an operator asks of a caller that complains.
func (s *story) explain() {
	const caller = "203.0.113.99"
	s.p.tell("\nA caller complains that it gets 429.")
	for range chats {
		s.ask("POST", "/assistant", caller, 200)
	}
	s.ask("POST", "/assistant", caller, 429)
	s.p.tell("\nWhy was it refused? docs/support.md has the commands that say it.\n  $ refrakt-gate show --ip %s", caller)
	settings := maps.Clone(s.settings)
	settings["QUEUE_URL"] = s.QueueURL
	code, out := e2e.RunGate(s.p, settings, "show", "--ip", caller)
	for line := range strings.Lines(out) {
		s.p.tell("%s", strings.TrimRight("  "+line, " \n"))
	}
	if empty := fmt.Sprintf("assistant assistant ip 0 of %d in ", chats); code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), empty) {
		s.complain("expected %q in the output", empty)
	}
}

// waitQueue waits until so many jobs wait and none runs, and the gate has seen it.
func (s *story) waitQueue(pending int) {
	polltest.Until(s.p, 30*time.Second, fmt.Sprintf("the queue to hold %d jobs", pending), func() error {
		waiting, err := s.Client.LLen(s.p.Context(), "saq:default:queued").Result()
		if err != nil {
			return err
		}
		active, err := s.Client.LLen(s.p.Context(), "saq:default:active").Result()
		if err != nil {
			return err
		}
		metrics := s.Gates[0].Metrics(s.p)
		if seen := metrics[`refrakt_queue_pending_jobs{queue="default"}`]; waiting != int64(pending) || active != 0 || seen != float64(pending) || metrics[`refrakt_queue_running_jobs{queue="default"}`] != 0 {
			return fmt.Errorf("%d wait, %d run, the gate has seen %g wait", waiting, active, seen)
		}
		return nil
	})
}

// ask sends a request from this address and prints what came of it.
func (s *story) ask(method, path, caller string, want int) e2e.Response {
	send := s.Post
	if method == "GET" {
		send = s.Get
	}
	r := send(s.p, path, "CF-Connecting-IP: "+caller)
	verdict, extra := "ok   ", ""
	if r.Status != want {
		verdict = "WRONG"
		s.wrong++
	}
	if wait := r.Header.Get("Retry-After"); wait != "" {
		extra = ", Retry-After " + wait + " s"
	}
	s.p.tell("  %s  %-4s %-10s from %-13s expected %d, got %d%s", verdict, method, path, caller, want, r.Status, extra)
	return r
}

func (s *story) retryAfter(r e2e.Response) time.Duration {
	wait, err := r.Wait()
	if err != nil {
		s.complain("%v", err)
	}
	return wait
}

func (s *story) complain(format string, args ...any) {
	s.p.tell("  WRONG  "+format, args...)
	s.wrong++
}
