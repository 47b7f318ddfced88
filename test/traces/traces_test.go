package traces

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

const (
	checkName = "envoy.service.auth.v3.Authorization/Check"
	// patience is how long spans may take to arrive.
	patience = 30 * time.Second
	// traceID and spanID are of a client that traces.
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

// startGate starts a gate that sends its spans to c at once.
func startGate(t *testing.T, c *Collector, settings map[string]string) *e2e.Gate {
	t.Helper()
	env := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + c.HTTP, "OTEL_BSP_SCHEDULE_DELAY": "50", "RATE_LIMIT_RUN_BURST": "2",
	}
	maps.Copy(env, settings)
	return e2e.StartGate(t, env)
}

// await polls until look finds what it wants in the spans that have arrived.
func await(t *testing.T, c *Collector, what string, look func([]Span) error) {
	t.Helper()
	polltest.Until(t, patience, what, func() error { return look(c.Spans()) })
}

// of are the spans with this name of this service.
func of(spans []Span, service, name string) []Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s Span) bool { return s.Service() != service || s.Name() != name })
}

func checks(spans []Span) []Span { return of(spans, "refrakt-gate", checkName) }

// children are the names of the spans that this one is the parent of, sorted. Those of a new connection are left out.
func children(spans []Span, parent Span) []string {
	var names []string
	for _, s := range spans {
		if s.ParentSpanID() == parent.SpanID() && s.TraceID() == parent.TraceID() && s.Name() != "HELLO" && !strings.HasSuffix(s.Name(), "CLIENT") {
			names = append(names, s.Name())
		}
	}
	slices.Sort(names)
	return names
}

// count wants n spans of Checks.
func count(n int) func([]Span) error {
	return func(spans []Span) error {
		if got := len(checks(spans)); got != n {
			return fmt.Errorf("%d spans of Checks, want %d", got, n)
		}
		return nil
	}
}

func post(t *testing.T, envoy *e2e.Envoy, path string, status int, headers ...string) {
	t.Helper()
	answer, err := envoy.Ask(t.Context(), path, "{}", headers...)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != status {
		t.Errorf("POST %s: status %d, want %d", path, answer.Status, status)
	}
}

// TestTraceThroughEnvoy: envoy.yaml with what it has for traces. A request is one trace, from Envoy over the Check to
// the trip to Redis, and says nothing of who asked for what.
func TestTraceThroughEnvoy(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c := StartCollector(t)
			endpoint := map[string]string{"grpc": c.GRPC, "http/protobuf": c.HTTP}[protocol]
			gate := startGate(t, c, map[string]string{
				"QUEUE_URL": redistest.Start(t).URL(), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
			})
			envoy := e2e.StartEnvoy(t, tracingEnvoy(t, c.GRPC), e2e.StartWideAPI(t).Addr, gate.GRPC)
			for _, status := range []int{http.StatusAccepted, http.StatusAccepted, http.StatusTooManyRequests} {
				post(t, envoy, "/run?user_id=private-user", status, "CF-Connecting-IP: 203.0.113.9", "X-User-ID: private-user")
			}
			want := []struct{ verdict, reason string }{{"allow", "ok"}, {"allow", "ok"}, {"deny", "rate_limited"}}
			await(t, c, "the spans of three requests", func(spans []Span) error {
				all := checks(spans)
				if len(all) != len(want) {
					return fmt.Errorf("%d spans of Checks", len(all))
				}
				slices.SortFunc(all, func(a, b Span) int { return int(a.StartTimestamp()) - int(b.StartTimestamp()) })
				for i, check := range all {
					if v, r, p := check.Text("refrakt.gate.verdict"), check.Text("refrakt.gate.reason"), check.Text("refrakt.gate.policy"); v != want[i].verdict || r != want[i].reason || p != "run" {
						return fmt.Errorf("Check %d: %s, %s, policy %s", i, v, r, p)
					}
					if got := children(spans, check); !slices.Equal(got, []string{"EVALSHA"}) && !slices.Equal(got, []string{"EVAL", "EVALSHA"}) {
						return fmt.Errorf("Check %d has the children %v", i, got)
					}
					parent := slices.IndexFunc(spans, func(s Span) bool { return s.SpanID() == check.ParentSpanID() })
					if parent < 0 || spans[parent].Service() != "envoy" || spans[parent].TraceID() != check.TraceID() {
						return fmt.Errorf("Check %d is not part of Envoy's trace", i)
					}
				}
				return nil
			})
			// Envoy's own spans have the path of a request. Those of the gate must not.
			for _, s := range c.Spans() {
				if s.Service() != "refrakt-gate" {
					continue
				}
				whole, err := json.Marshal(map[string]any{"name": s.Name(), "status": s.Status().Message(), "attributes": s.Attributes().AsRaw(), "resource": s.Resource.Attributes().AsRaw()})
				if err != nil {
					t.Fatal(err)
				}
				for _, private := range []string{"private-user", "203.0.113", "127.0.0.1", "/run", "user_id"} {
					if strings.Contains(string(whole), private) {
						t.Errorf("a span shows %s: %s", private, whole)
					}
				}
			}
		})
	}
}

// tracingEnvoy is envoy.yaml with what it has for traces switched on, for all requests.
func tracingEnvoy(t *testing.T, collector string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), e2e.ShippedConfig))
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(collector)
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{
		"random_sampling: {value: 1} # percent":  "random_sampling: {value: 100}  # percent",
		"{address: collector, port_value: 4317}": fmt.Sprintf("{address: %s, port_value: %s}", host, port),
		"#trace ":                                "",
	}
	counts := map[string]int{"#trace ": 17}
	for from := range replace {
		if got, want := strings.Count(string(text), from), max(1, counts[from]); got != want {
			t.Fatalf("%q is in envoy.yaml %d times, want %d", from, got, want)
		}
	}
	config := string(text)
	for from, to := range replace {
		config = strings.ReplaceAll(config, from, to)
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTraceOfClient: with the shipped Envoy, which makes no traces, the Check belongs to the trace of the client. The
// client also decides whether the request is traced.
func TestTraceOfClient(t *testing.T) {
	t.Parallel()
	c := StartCollector(t)
	gate := startGate(t, c, map[string]string{"OTEL_SERVICE_NAME": "gate-of-test", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"})
	envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, e2e.StartWideAPI(t).Addr, gate.GRPC)
	post(t, envoy, "/run", http.StatusAccepted, fmt.Sprintf("traceparent: 00-%s-%s-00", traceID, spanID))
	post(t, envoy, "/run", http.StatusAccepted, fmt.Sprintf("traceparent: 00-%s-%s-01", traceID, spanID))
	await(t, c, "the span of the second request", func(spans []Span) error {
		if len(spans) != 1 {
			return fmt.Errorf("%d spans", len(spans))
		}
		s := spans[0]
		if s.TraceID().String() != traceID || s.ParentSpanID().String() != spanID {
			return fmt.Errorf("it belongs to %s of %s", s.ParentSpanID(), s.TraceID())
		}
		if s.Service() != "gate-of-test" || text(s.Resource.Attributes(), "deployment.environment.name") != "test" || text(s.Resource.Attributes(), "service.version") == "" {
			return fmt.Errorf("its resource is %v", s.Resource.Attributes().AsRaw())
		}
		return nil
	})
}

// TestSharedCalls: requests that share a call to Redis have a span of it each.
func TestSharedCalls(t *testing.T) {
	t.Parallel()
	const requests = 200
	c := StartCollector(t)
	gate := startGate(t, c, map[string]string{"QUEUE_URL": redistest.Start(t).URL()})
	envoy := e2e.StartEnvoy(t, e2e.PatientConfig(t), e2e.StartWideAPI(t).Addr, gate.GRPC)
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() {
			if _, err := envoy.Ask(t.Context(), "/assistant", "{}", fmt.Sprintf("CF-Connecting-IP: 203.0.113.%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	await(t, c, "a trip to Redis for each request", func(spans []Span) error {
		if err := count(requests)(spans); err != nil {
			return err
		}
		for _, check := range checks(spans) {
			if got := children(spans, check); !slices.Contains(got, "EVALSHA") {
				return fmt.Errorf("a Check has the children %v", got)
			}
		}
		return nil
	})
	shared := slices.DeleteFunc(c.Spans(), func(s Span) bool { return s.Text("db.operation.batch.size") == "" })
	if len(shared) == 0 {
		t.Error("no span says that requests shared a call")
	}
}

// TestEachServerHasItsTrip: the buckets are elsewhere than the queue, so a request needs a trip for its place in the
// queue, and one for its buckets: in a Redis Cluster one for each.
func TestEachServerHasItsTrip(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		buckets func(*testing.T) string // URL of their Redis
		trips   int
	}{
		"cluster": {func(t *testing.T) string { return redistest.StartCluster(t, 3, false).URL() }, 3},
		"server":  {func(t *testing.T) string { return redistest.Start(t).URL() }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := StartCollector(t)
			gate := startGate(t, c, map[string]string{
				"QUEUE_URL": redistest.Start(t).URL(), "RATE_LIMIT_REDIS_URL": tt.buckets(t), "REDIS_TIMEOUT": "5s",
			})
			envoy := e2e.StartEnvoy(t, e2e.PatientConfig(t), e2e.StartWideAPI(t).Addr, gate.GRPC)
			for i := range 2 { // the first one also loads the scripts
				post(t, envoy, "/run", http.StatusAccepted, "CF-Connecting-IP: 203.0.113.9", "X-User-ID: ann")
				await(t, c, "the span", count(i+1))
			}
			await(t, c, "the trips of the second request", func(spans []Span) error {
				second := slices.MaxFunc(checks(spans), func(a, b Span) int { return int(a.StartTimestamp()) - int(b.StartTimestamp()) })
				if got := children(spans, second); !slices.Equal(got, slices.Repeat([]string{"EVALSHA"}, tt.trips)) {
					return fmt.Errorf("its children are %v", got)
				}
				return nil
			})
		})
	}
}

// TestCollectorAway: without a collector the gate decides as ever. /readyz and the metrics tell that spans are lost, and
// that they arrive again.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	c := StartCollector(t)
	c.Stop()
	gate := startGate(t, c, map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "200"})
	envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, e2e.StartWideAPI(t).Addr, gate.GRPC)
	const degraded = "traces: the collector does not take them"
	post(t, envoy, "/run", http.StatusAccepted)
	polltest.Until(t, patience, "the loss to be told", func() error {
		if ready := gate.Get(t, "/readyz"); ready.Status != http.StatusOK || !strings.Contains(ready.Body, degraded) {
			return fmt.Errorf("/readyz says %d %s", ready.Status, ready.Body)
		}
		return nil
	})
	if m := gate.Metrics(t); m["refrakt_gate_spans_ended_total"] != 1 || m["refrakt_gate_spans_exported_total"] != 0 {
		t.Errorf("the metrics say %v of %v", m["refrakt_gate_spans_exported_total"], m["refrakt_gate_spans_ended_total"])
	}
	c.Start(t)
	post(t, envoy, "/run", http.StatusAccepted)
	await(t, c, "the second span", count(1))
	polltest.Until(t, patience, "the recovery to be told", func() error {
		if ready := gate.Get(t, "/readyz"); strings.Contains(ready.Body, degraded) {
			return fmt.Errorf("/readyz says %s", ready.Body)
		}
		return nil
	})
}

// TestLastSpansAreSent: a gate that is told to stop sends its spans first.
func TestLastSpansAreSent(t *testing.T) {
	t.Parallel()
	c := StartCollector(t)
	gate := startGate(t, c, map[string]string{"OTEL_BSP_SCHEDULE_DELAY": "600000"})
	envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, e2e.StartWideAPI(t).Addr, gate.GRPC)
	post(t, envoy, "/run", http.StatusAccepted)
	gate.Stop(t)
	await(t, c, "the span of the last request", count(1))
}

// TestOffByDefault: without a setting nothing is traced, whatever the client asks for, and nothing is sent if the
// settings say so.
func TestOffByDefault(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]map[string]string{
		"nothing set": {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
		"no exporter": {"OTEL_TRACES_EXPORTER": "none"},
		"disabled":    {"OTEL_SDK_DISABLED": "true"},
		"sampler":     {"OTEL_TRACES_SAMPLER": "always_off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := StartCollector(t)
			gate := startGate(t, c, settings)
			envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, e2e.StartWideAPI(t).Addr, gate.GRPC)
			post(t, envoy, "/run", http.StatusAccepted, fmt.Sprintf("traceparent: 00-%s-%s-01", traceID, spanID))
			gate.Stop(t) // sends what there is
			if spans := c.Spans(); len(spans) > 0 {
				t.Errorf("%d spans arrived", len(spans))
			}
		})
	}
}

// TestDocumentedCommands: the commands of docs/traces.md start a gate that traces.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), "docs", "traces.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for line := range strings.Lines(string(text)) {
		assigned, ok := strings.CutSuffix(strings.TrimSpace(line), " refrakt-gate serve")
		if !ok {
			continue
		}
		commands++
		settings := map[string]string{}
		for field := range strings.FieldsSeq(assigned) {
			name, value, _ := strings.Cut(field, "=")
			settings[name] = value
		}
		words := e2e.Config(t, settings)
		for name, value := range settings {
			if !strings.Contains(words, name+"="+value+"\n") {
				t.Errorf("%s: the gate does not know %s", line, name)
			}
		}
		if !strings.Contains(words, "# traces go to http://collector:4318/v1/traces ") {
			t.Errorf("%s: no request is traced:\n%s", line, words)
		}
	}
	if commands != 2 {
		t.Errorf("%d commands, want 2", commands)
	}
}
