package watch

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// zero are the queries of series that the traffic below leaves at 0; they must be there all the same.
var zero = map[string]string{
	"refrakt_gate_unknown_ips_total":    "Envoy always knows the peer",
	"refrakt_gate_shadow_denials_total": "no check is in shadow mode",
}

// withFile are parts of the queries of series that only gates with a policy file have.
var withFile = []string{"queue_share_limit_jobs", "queue_largest_share_jobs", "queue_reserve_used_up", "policy_reload_successful", `reason="queue_share"`}

// policyFile has the limits of the settings below, and what only a file can say.
const policyFile = `
tiers: {premium: 3}
queues:
  default: {max_pending: 5, max_age: 10m, fair_share: 1, reserve: {tiers: [premium], share: 0.2}}
policies:
  run: {match: [/run, /run/], queue: default, becomes_job: true, buckets: [{per: ip, burst: 3, rate: 6/m}]}
  assistant: {match: [/assistant, /assistant/], queue: default, buckets: [{per: ip, burst: 10000, rate: 30/m}]}
`

// TestQueries runs each query of the dashboard and of the rules on a Prometheus that has scraped two gates under
// traffic of every kind: none may fail, and each must show something. Without a policy file, the targets have the label
// of the queue. With it, the series of the queue have it.
func TestQueries(t *testing.T) {
	t.Parallel()
	t.Run("without a policy file", func(t *testing.T) {
		t.Parallel()
		testQueries(t, "\n    labels: {queue: default}", map[string]string{
			"RATE_LIMIT_RUN_BURST": "3", "RATE_LIMIT_ASSISTANT_BURST": "10000", "QUEUE_MAX_PENDING": "5",
		})
	})
	t.Run("with a policy file", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "policies.yaml")
		write(t, file, policyFile)
		testQueries(t, "", map[string]string{"POLICY_FILE": file})
	})
}

func testQueries(t *testing.T, labels string, limits map[string]string) {
	t.Helper()
	dir, ca := t.TempDir(), certtest.NewCA(t)
	certtest.Mount(t, dir, ca.Pair(t, e2e.GateName, e2e.EnvoyName), ca) // for both sides
	settings := e2e.MutualTLS(dir)
	maps.Copy(settings, limits)
	maps.Copy(settings, map[string]string{
		"QUEUE_SAMPLE_INTERVAL": "100ms", "QUEUE_STALE_AFTER": "600ms", "PROMETHEUS_QUEUE_POLL_INTERVAL": "100ms",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", // nobody takes the spans
	})
	s := e2e.Start(t, e2e.Options{Gates: 2, Config: e2e.TLSConfig(t, dir), Settings: settings})
	start := time.Now()
	prometheus := startPrometheus(t, s, labels)
	play(t, s, prometheus, limits["POLICY_FILE"] != "")

	for _, q := range queries(t, prometheus) {
		if limits["POLICY_FILE"] == "" && slices.ContainsFunc(withFile, func(part string) bool { return strings.Contains(q.expr, part) }) {
			continue
		}
		if err := q.check(prometheus, start); err != nil {
			t.Errorf("%s: %v\n  %s", q.where, err, q.expr)
		}
	}
}

// startPrometheus starts a Prometheus on the gates of s, with the shipped configuration and rules, only quicker, and with
// these labels of the targets.
func startPrometheus(t *testing.T, s *e2e.Stack, labels string) *e2e.Prometheus {
	t.Helper()
	dir := deployed(t)
	config := filepath.Join(dir, "prometheus.yml")
	replace(t, config, `["gate:9464"]`, fmt.Sprintf("[%q, %q]%s", s.Gates[0].Telemetry, s.Gates[1].Telemetry, labels),
		"scrape_interval: 5s", "scrape_interval: 1s", "scrape_timeout: 4s", "scrape_timeout: 1s")
	for _, file := range glob(t, dir, "rules/*.yml") {
		text := read(t, file)
		if !strings.Contains(text, "  interval: 15s\n") {
			t.Fatalf("%s: no group has the interval that is to be made shorter", file)
		}
		write(t, file, strings.ReplaceAll(text, "  interval: 15s\n", "  interval: 1s\n"))
	}
	return e2e.StartPrometheus(t, config)
}

// play makes every kind of traffic, each until Prometheus has seen it at both gates.
func play(t *testing.T, s *e2e.Stack, p *e2e.Prometheus, shares bool) {
	t.Helper()
	until := func(what, expr string, step func(envoy *e2e.Envoy)) {
		t.Helper()
		polltest.Until(t, 60*time.Second, what, func() error {
			for _, envoy := range s.Envoys {
				step(envoy)
			}
			return wantValue(p, "count(("+expr+") > 0)", 2)
		})
	}
	decided := func(labels string) string {
		return `sum by (instance) (rate(refrakt_gate_decisions_total{` + labels + `}[10s]))`
	}
	caller := e2e.Caller(t)
	idle := func(*e2e.Envoy) {}
	run := func(envoy *e2e.Envoy) { envoy.Post(t, "/run", caller) }
	assistant := func(envoy *e2e.Envoy) { envoy.Post(t, "/assistant", caller) }

	until("the gates to be scraped", `up{job="refrakt-gate"}`, idle)
	if shares {
		greedy := e2e.Caller(t)
		until("a caller with its share", decided(`policy="run", verdict="deny", reason="queue_share"`), func(envoy *e2e.Envoy) { envoy.Post(t, "/run", greedy) })
	}
	worker := s.StartWorker(t, 8)
	s.Enqueue(t, e2e.Jobs{Count: 3, Seconds: 5, Source: "api"})
	until("jobs that run", `refrakt_queue_running_jobs`, idle)
	until("requests allowed", decided(`policy="run", verdict="allow", reason="ok"`), run)
	until("429", decided(`policy="run", verdict="deny", reason="rate_limited"`), run)
	until("users named ambiguously", `rate(refrakt_gate_ambiguous_users_total[10s])`, func(envoy *e2e.Envoy) {
		envoy.Post(t, "/assistant", caller, "X-User-ID: ann", "X-User-ID: bob")
	})

	worker.Stop(t)
	s.Enqueue(t, e2e.Jobs{Count: 5, Age: time.Minute})
	for _, policy := range []string{"run", "assistant"} {
		until("503", decided(`policy="`+policy+`", verdict="deny", reason="queue_full"`), func(envoy *e2e.Envoy) { envoy.Post(t, "/"+policy, caller) })
	}
	s.StartWorker(t, 8)
	until("the queue to drain", `refrakt_gate_queue_drain_jobs_per_second`, idle)

	s.Redis.Kill()
	until("fallback", `refrakt_gate_fallback_active`, assistant)
	until("requests without Redis", `rate(refrakt_gate_fallback_total[10s])`, assistant)
	until("requests let in unseen", decided(`verdict="allow", reason="queue_unknown"`), assistant)
	s.Redis.Restart()
	until("recovery", `refrakt_gate_queue_state{state="ok"}`, idle)
}

// query is one query of the dashboard or the rules.
type query struct {
	where, expr string
	parsed      bool // nothing more is wanted than that it can be evaluated
}

// check runs the query over all the time since start.
func (q query) check(p *e2e.Prometheus, start time.Time) error {
	result, err := p.QueryRange(q.expr, start, time.Now(), time.Second)
	if err != nil || q.parsed {
		return err
	}
	some, found := false, 0
	for _, series := range result {
		for _, sample := range series.Values {
			if v := float64(sample.Value); !math.IsNaN(v) {
				found++
				some = some || v > 0
			}
		}
	}
	for name := range zero {
		some = some || strings.Contains(q.expr, name)
	}
	if found == 0 {
		return errors.New("shows nothing")
	}
	if !some {
		return errors.New("shows nothing but 0")
	}
	return nil
}

var selector = regexp.MustCompile(`(\w+:)?(refrakt|process|go)_[\w:]+(\{[^}]*\})?|\bup\{[^}]*\}`)

// queries is each query of dashboard and rules, and, since an alert shows nothing when all is well, each selector.
func queries(t *testing.T, p *e2e.Prometheus) []query {
	t.Helper()
	var all []query
	fill := variables(t, p)
	for _, panel := range loadDashboard(t).Panels {
		for i, target := range panel.Targets {
			all = append(all, query{where: fmt.Sprintf("panel %q, query %d", panel.Title, i+1), expr: fill.Replace(target.Expr)})
		}
	}
	for _, r := range rules(t) {
		all = append(all, query{where: "rule " + r.Record + r.Alert, expr: r.Expr, parsed: r.Alert != ""})
	}
	for _, q := range all {
		if strings.Contains(q.expr, "$") {
			t.Errorf("%s: a variable that the test does not know: %s", q.where, q.expr)
		}
		selectors := selector.FindAllString(q.expr, -1)
		if len(selectors) == 0 {
			t.Errorf("%s: no selector found in %s", q.where, q.expr)
		}
		for _, s := range selectors {
			all = append(all, query{where: "selector in " + q.where, expr: "count(" + s + ")"})
		}
	}
	return all
}

// variables asks for the values of the dashboard's variables and fills them in, as Grafana does.
func variables(t *testing.T, p *e2e.Prometheus) *strings.Replacer {
	t.Helper()
	labelValues := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	oldnew := []string{"$__rate_interval", "10s"}
	for _, v := range loadDashboard(t).Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Fatalf("variable %s: %q is no query of label values", v.Name, v.Definition)
		}
		expr := strings.NewReplacer(oldnew...).Replace(fmt.Sprintf("count by (%s) (%s)", m[2], m[1]))
		result, err := p.Query(expr)
		if err != nil {
			t.Fatalf("variable %s: %v", v.Name, err)
		}
		// Grafana offers no value for series without the label.
		result = slices.DeleteFunc(result, func(s *model.Sample) bool { return len(s.Metric) == 0 })
		want, value := 1, v.AllValue
		if v.Multi {
			want = 2
		}
		if len(result) != want {
			t.Fatalf("variable %s: %s has the values %v, want %d", v.Name, expr, result, want)
		}
		if !v.Multi {
			for _, label := range result[0].Metric {
				value = string(label)
			}
		}
		oldnew = append(oldnew, "$"+v.Name, value)
	}
	return strings.NewReplacer(oldnew...)
}
