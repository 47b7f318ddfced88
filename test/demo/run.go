package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// ports are those of envoy.yaml, and the gate's by default.
var ports = map[string]string{
	"8080": "Envoy", "9901": "Envoy's admin port", "8000": "the example API", "9001": "the gate", "9464": "the gate's metrics",
}

const guide = `
Envoy is on http://localhost:8080, in front of the gate and the example API. Try:

  curl -i -X POST localhost:8080/run          # %s at once, then 429 with Retry-After
  curl -i -X POST localhost:8080/assistant    # its own bucket
  curl -i localhost:8080/ping                 # Envoy does not ask the gate
  curl -i -X POST localhost:8080/run -H 'CF-Connecting-IP: 203.0.113.9'   # another caller, another bucket
  curl -s localhost:9464/metrics | grep refrakt_

%s
Logs are in %s. Ctrl-C stops everything and removes them.`

const (
	inMemory = "The buckets are in the memory of the gate. With QUEUE_URL=redis://localhost:6379/0, buckets and job queue are in Redis."
	inRedis  = `The buckets and the job queue are in the Redis of QUEUE_URL. Jobs wait until a worker runs:
  cd examples/api && ../../.venv/bin/saq worker.settings`
)

// runAll runs Envoy, the gate and the example API on their usual ports until the user ends it. Every setting of the gate
// is taken from the environment. Without QUEUE_URL nothing needs Redis.
func runAll(p *program) {
	requireFree(p)
	proctest.LogDir = p.TempDir()
	env := map[string]string{}
	for _, line := range os.Environ() {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	settings := maps.Clone(env)
	maps.Copy(settings, map[string]string{"GRPC_ADDR": "127.0.0.1:9001", "TELEMETRY_ADDR": "127.0.0.1:9464", "LOG_FORMAT": "json"})

	api := e2e.StartAPIOn(p, "8000", env["QUEUE_URL"])
	gate := e2e.StartGate(p, settings)
	envoy := e2e.StartEnvoyAsShipped(p)

	store := inMemory
	if env["QUEUE_URL"] != "" {
		store = inRedis
	}
	p.tell(guide, cmp.Or(env["RATE_LIMIT_RUN_BURST"], "10"), store, proctest.LogDir)
	waitForEnd(p, api.Process, gate.Process, envoy.Process)
}

// waitForEnd waits until the user ends it. A process that ends by itself is a failure.
func waitForEnd(p *program, processes ...*proctest.Process) {
	ended := make(chan *proctest.Process, len(processes))
	for _, process := range processes {
		go func() {
			<-process.Done()
			ended <- process
		}()
	}
	select {
	case <-p.Context().Done():
	case process := <-ended:
		p.Fatalf("%s ended by itself (exit code %d)", process.Name, process.ExitCode())
	}
}

// requireFree fails with a list of the ports that others use.
func requireFree(p *program) {
	var taken []string
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		l, err := net.Listen("tcp", "0.0.0.0:"+port)
		if err != nil {
			taken = append(taken, fmt.Sprintf("  port %s (%s): %v", port, ports[port], err))
			continue
		}
		_ = l.Close()
	}
	if len(taken) > 0 {
		p.Fatalf("these ports are in use; end the programs that use them:\n%s", strings.Join(taken, "\n"))
	}
}
