package compose

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// The services' own commands and settings, only the addresses are others.
func TestByHand(t *testing.T) {
	t.Parallel()
	services := load(t).Services

	redis := redistest.Start(t, services["redis"].Command[1:]...)
	python := func(service types.ServiceConfig) *proctest.Process {
		env := environment(service)
		env["QUEUE_URL"] = redis.URL()
		env["PYTHONDONTWRITEBYTECODE"] = "1"
		command := slices.Clone(service.Command)
		if i := slices.Index(command, "--port"); i >= 0 {
			command[i+1] = "0"
		}
		return proctest.Start(t, proctest.Command{
			Name: service.Name, Path: e2e.Tool(t, command[0]), Args: command[1:],
			Dir: filepath.Join(e2e.Root(), "examples", "api"), Env: assignments(env),
		})
	}
	api, worker := python(services["api"]), python(services["worker"])
	worker.WaitLog(t, regexp.MustCompile(`Worker starting`))
	addr := api.WaitLog(t, regexp.MustCompile(`Uvicorn running on http://(\S+)`))[1]

	policies := startPolicies(t, services)
	settings := environment(services["gate"])
	settings["POLICY_FILE"] = policies.file
	maps.Copy(settings, map[string]string{
		"QUEUE_URL": redis.URL(), "GRPC_ADDR": "127.0.0.1:0", "TELEMETRY_ADDR": "127.0.0.1:0",
	})
	gate := e2e.StartGate(t, settings)
	envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, addr, gate.GRPC)

	settings["TELEMETRY_ADDR"] = gate.Telemetry
	checks := map[string]func() error{
		"api":    func() error { return healthCheck(t, services["api"], nil, "127.0.0.1:8000", addr) },
		"worker": func() error { return healthCheck(t, services["worker"], []string{"QUEUE_URL=" + redis.URL()}) },
		"envoy": func() error {
			return healthCheck(t, services["envoy"], nil, "127.0.0.1/9901", strings.Replace(envoy.Admin, ":", "/", 1))
		},
		"gate":     func() error { return healthCheck(t, services["gate"], assignments(settings)) },
		"policies": func() error { return policies.healthy(t, services["policies"]) },
		"redis":    func() error { return healthCheck(t, services["redis"], nil, "redis-cli", "redis-cli -s "+redis.Socket) },
	}
	for name, check := range checks {
		if err := check(); err != nil {
			t.Errorf("%s is not healthy: %v", name, err)
		}
	}

	const burst = 10 // of the preset
	caller := e2e.Caller(t)
	for i := range burst {
		if r := envoy.Post(t, "/run", caller); r.Status != http.StatusAccepted {
			t.Fatalf("request %d of %d: got %d %s, want 202", i+1, burst, r.Status, r.Body)
		}
	}
	r := envoy.Post(t, "/run", caller)
	if r.Status != http.StatusTooManyRequests {
		t.Fatalf("after the burst: got %d %s, want 429", r.Status, r.Body)
	}
	r.RetryAfter(t)
	const allowed = `refrakt_gate_decisions_total{policy="run",reason="ok",verdict="allow"}`
	if got := gate.Metrics(t)[allowed]; got != burst {
		t.Errorf("%s: got %v, want %d", allowed, got, burst)
	}

	// A worker counts as alive until what it wrote to Redis expires.
	for name, end := range map[string]func(){
		"api": func() { api.Stop(t) }, "envoy": func() { envoy.Kill(t) }, "gate": func() { gate.Stop(t) }, "redis": redis.Kill,
		"policies": func() { _ = os.Remove(policies.file) },
	} {
		end()
		if err := checks[name](); err == nil {
			t.Errorf("%s is healthy after its end", name)
		}
	}
}

// healthCheck runs the service's own health check here; of each two strings in oldnew, the first becomes the second.
func healthCheck(t *testing.T, s types.ServiceConfig, env []string, oldnew ...string) error {
	t.Helper()
	command := slices.Clone(s.HealthCheck.Test[1:])
	for i := range command {
		for j := 0; j < len(oldnew); j += 2 {
			command[i] = strings.ReplaceAll(command[i], oldnew[j], oldnew[j+1])
		}
	}
	command = append(strings.Fields(command[0]), command[1:]...)
	switch command[0] {
	case "refrakt-gate":
		command[0] = e2e.GateBinary(t)
	case "python", "saq":
		command[0] = e2e.Tool(t, command[0])
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = filepath.Join(e2e.Root(), "examples", "api")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", s.HealthCheck.Test, err, out)
	}
	return nil
}

// TestPrometheusIsReady: Prometheus answers where its health check asks.
func TestPrometheusIsReady(t *testing.T) {
	t.Parallel()
	test := load(t).Services["prometheus"].HealthCheck.Test
	path, found := strings.CutPrefix(test[len(test)-1], "http://127.0.0.1:9090")
	if !found {
		t.Fatalf("the health check does not ask Prometheus: %v", test)
	}
	prometheus := e2e.StartPrometheus(t, filepath.Join(e2e.Root(), "deploy", "prometheus", "prometheus.yml"))
	resp, err := http.Get("http://" + prometheus.Addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: got %s", path, resp.Status)
	}
}

func assignments(env map[string]string) []string {
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}
