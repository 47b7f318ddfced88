package watch

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestScrapeConfigs starts a Prometheus with each shipped configuration, only the addresses changed, and wants all its
// targets up. That of compose is for gates with a policy file, the others are for gates without it.
func TestScrapeConfigs(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, config string) *e2e.Prometheus{
		"prometheus.yml": func(t *testing.T, config string) *e2e.Prometheus {
			replace(t, config, "gate:9464", withPolicies(t, read(t, filepath.Join(e2e.Root(), "examples/policies/preset.yaml"))).Telemetry)
			return e2e.StartPrometheus(t, config)
		},
		"scrape-token.yml": func(t *testing.T, config string) *e2e.Prometheus {
			replace(t, config, "gate-0.internal:9464", guarded(t), "gate-1.internal:9464", guarded(t))
			return e2e.StartPrometheus(t, config)
		},
		"scrape-tls.yml": func(t *testing.T, config string) *e2e.Prometheus {
			dir, ca := t.TempDir(), certtest.NewCA(t)
			certtest.Mount(t, dir, ca.Pair(t, "127.0.0.1"), ca)
			if err := os.WriteFile(filepath.Join(filepath.Dir(config), "refrakt-gate-ca.crt"), ca.Cert, 0o600); err != nil {
				t.Fatal(err)
			}
			settings := map[string]string{"TELEMETRY_TLS_CERT_FILE": dir + "/tls.crt", "TELEMETRY_TLS_KEY_FILE": dir + "/tls.key"}
			replace(t, config, "gate-0.internal:9464", e2e.StartGate(t, settings).Telemetry, "gate-1.internal:9464", e2e.StartGate(t, settings).Telemetry)
			return e2e.StartPrometheus(t, config)
		},
		"scrape-tunnel.yml": func(t *testing.T, config string) *e2e.Prometheus {
			first, second := tunnel(t, guarded(t)), tunnel(t, guarded(t))
			replace(t, config, "gate-0-metrics.example.com", first.Listener.Addr().String(),
				"gate-1-metrics.example.com", second.Listener.Addr().String())
			ca := filepath.Join(t.TempDir(), "ca.pem")
			block := &pem.Block{Type: "CERTIFICATE", Bytes: first.Certificate().Raw} // both servers have the same
			if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			return e2e.StartPrometheus(t, config, "SSL_CERT_FILE="+ca)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := filepath.Join(deployed(t), name)
			var text struct {
				Global struct {
					Interval string `yaml:"scrape_interval"`
				} `yaml:"global"`
			}
			readYAML(t, config, &text)
			if got, want := text.Global.Interval, "5s"; got != want {
				t.Errorf("scrape_interval: got %s, want %s", got, want)
			}
			targets := strings.Count(read(t, config), ":9464") + strings.Count(read(t, config), "-metrics.example.com")
			prometheus := start(t, config)
			queue := "default"
			if name == "prometheus.yml" {
				queue = ""
				polltest.Until(t, 60*time.Second, "the series of the queue, by its name", func() error {
					return wantValue(prometheus, `count(queue:refrakt_gate_queue_limit_pending_jobs:min{queue="default"})`, 1)
				})
			}
			polltest.Until(t, 60*time.Second, "all targets to be up, with the label of the queue", func() error {
				return wantValue(prometheus, fmt.Sprintf(`count(up{job="refrakt-gate", queue=%q} == 1)`, queue), float64(targets))
			})
			if err := wantValue(prometheus, fmt.Sprintf(`count(refrakt_gate_build_info{queue=%q})`, queue), float64(targets)); err != nil {
				t.Error(err)
			}
			polltest.Until(t, 60*time.Second, "the rules to be evaluated", func() error {
				return wantValue(prometheus, fmt.Sprintf(`count(queue_policy_verdict_reason:refrakt_gate_decisions:rate5m{queue=%q, policy="run", reason="ok"})`, queue), 1)
			})
		})
	}
}

// TestLabelOfTheTarget: a gate gets a policy file with two queues, and its target keeps the label that is for gates
// without a file. The series of each queue are of that queue all the same.
func TestLabelOfTheTarget(t *testing.T) {
	t.Parallel()
	config := filepath.Join(deployed(t), "scrape-token.yml")
	gate := withPolicies(t, "queues: {images: {max_pending: 5}, videos: {max_pending: 7}}\n"+
		"policies: {images: {match: [/images], queue: images}, videos: {match: [/videos], queue: videos}}\n")
	replace(t, config, `, "gate-1.internal:9464"`, "", "gate-0.internal:9464", gate.Telemetry)
	prometheus := e2e.StartPrometheus(t, config)
	for queue, limit := range map[string]float64{"images": 5, "videos": 7} {
		polltest.Until(t, 60*time.Second, "the limit of "+queue, func() error {
			return wantValue(prometheus, fmt.Sprintf("queue:refrakt_gate_queue_limit_pending_jobs:min{queue=%q}", queue), limit)
		})
	}
}

// withPolicies starts a gate with a policy file and a Redis.
func withPolicies(t *testing.T, policies string) *e2e.Gate {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	write(t, file, policies)
	return e2e.StartGate(t, map[string]string{"POLICY_FILE": file, "QUEUE_URL": redistest.Start(t).URL()})
}

// guarded is the telemetry address of a gate that wants the token.
func guarded(t *testing.T) string {
	t.Helper()
	g := e2e.StartGate(t, map[string]string{"PROMETHEUS_BEARER_TOKEN": token})
	if r := g.Get(t, "/metrics"); r.Status != http.StatusUnauthorized {
		t.Fatalf("a scrape without the token: got %d, want 401", r.Status)
	}
	return g.Telemetry
}

// tunnel is an https server that passes requests on to addr.
func tunnel(t *testing.T, addr string) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr}))
	t.Cleanup(s.Close)
	return s
}

// wantValue wants expr to be one sample of this value.
func wantValue(p *e2e.Prometheus, expr string, want float64) error {
	got, err := p.Query(expr)
	if err != nil {
		return err
	}
	if len(got) != 1 || float64(got[0].Value) != want {
		return fmt.Errorf("%s: got %v, want %v", expr, got, want)
	}
	return nil
}
