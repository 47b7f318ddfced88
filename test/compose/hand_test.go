package compose

import (
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// The services' own commands and settings, only the addresses are others.
func TestByHand(t *testing.T) {
	t.Parallel()
	services := load(t).Services

	redis := redistest.Start(t, services["redis"].Command[1:]...)
	python := func(service types.ServiceConfig) *e2e.Process {
		env := environment(service)
		env["QUEUE_URL"] = redis.URL()
		env["PYTHONDONTWRITEBYTECODE"] = "1"
		command := slices.Clone(service.Command)
		if i := slices.Index(command, "--port"); i >= 0 {
			command[i+1] = "0"
		}
		return e2e.StartProcess(t, e2e.Command{
			Name: service.Name, Path: e2e.Tool(t, command[0]), Args: command[1:],
			Dir: filepath.Join(e2e.Root(), "examples", "api"), Env: assignments(env),
		})
	}
	api := python(services["api"])
	python(services["worker"]).WaitLog(t, regexp.MustCompile(`Worker starting`))
	addr := api.WaitLog(t, regexp.MustCompile(`Uvicorn running on http://(\S+)`))[1]

	settings := environment(services["gate"])
	burst, err := strconv.Atoi(settings["RATE_LIMIT_RUN_BURST"])
	if err != nil {
		t.Fatalf("RATE_LIMIT_RUN_BURST: %v", err)
	}
	maps.Copy(settings, map[string]string{
		"QUEUE_URL": redis.URL(), "GRPC_ADDR": "127.0.0.1:0", "TELEMETRY_ADDR": "127.0.0.1:0",
	})
	gate := e2e.StartGate(t, settings)
	envoy := e2e.StartEnvoy(t, e2e.ShippedConfig, addr, gate.GRPC)

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
	if got := gate.Metrics(t)[allowed]; got != float64(burst) {
		t.Errorf("%s: got %v, want %d", allowed, got, burst)
	}
}

func assignments(env map[string]string) []string {
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}
