// Package chaos breaks what the gate depends on while requests come in, and measures what becomes of them. `make chaos`
// plays every fault for some seconds and reports figures; `make test` plays each as briefly as shows its effect, and
// leaves out what depends on the machine's speed.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const (
	// maxPending is QUEUE_MAX_PENDING. More is asked for than workers can do, so the queue is always about to be full.
	maxPending = 40
	// Buckets of a plain caller, on both routes; those of premium ones are a thousand times as large.
	burst, perMinute, multiplier = 5, 6, 1000
)

// World is everything a request meets, with a proxy between the gates and Redis that can spoil their connections.
type World struct {
	Redis  *redistest.Server
	Direct *redis.Client // of Redis, past the proxy
	Gates  []*e2e.Gate
	API    *e2e.API

	Sentinel *redistest.Sentinel // nil: none
	Cluster  *redistest.Cluster  // nil: none

	proxy    *toxiproxy.Proxy
	upstream string // the address of Redis behind the proxy
	clock    string // file that Redis reads its offset from; "" is none
	config   string // Envoy's
	settings map[string]string
	envoys   []*e2e.Envoy // the last one runs
	target   atomic.Value // its address, a string
	worker   *proctest.Process
	apiQueue string
}

// Setup is what differs between worlds.
type Setup struct {
	Gates    int               // 0 is 1
	Sentinel bool              // Redis is a master with a replica, known by sentinels
	Cluster  bool              // the buckets are in a Redis Cluster
	Clock    bool              // Redis's clock can be set
	Settings map[string]string // of the gates, besides
}

// NewWorld starts one. Its processes end with the test.
func NewWorld(tb testing.TB, config string, setup Setup) *World {
	tb.Helper()
	w := &World{config: config}
	var addr string
	if setup.Sentinel {
		w.Sentinel = redistest.StartSentinel(tb)
		w.Redis = w.Sentinel.Master
	} else {
		w.Redis, addr = redistest.StartTCP(tb)
	}
	if setup.Clock {
		w.fakeClock(tb)
	}
	w.Direct = w.Redis.Client(tb)
	w.apiQueue = w.Redis.URL()
	w.settings = map[string]string{
		"QUEUE_MAX_PENDING": fmt.Sprint(maxPending), "RATE_LIMIT_PREMIUM_MULTIPLIER": fmt.Sprint(multiplier),
		"RATE_LIMIT_RUN_BURST": fmt.Sprint(burst), "RATE_LIMIT_RUN_PER_MINUTE": fmt.Sprint(perMinute),
		"RATE_LIMIT_ASSISTANT_BURST": fmt.Sprint(burst), "RATE_LIMIT_ASSISTANT_PER_MINUTE": fmt.Sprint(perMinute),
		"QUEUE_ADMISSION_WINDOW": "5s",        // longer than the API takes on a machine that stalls
		"QUEUE_SHADOW":           "assistant", // there the buckets are looked at, on /run the queue
	}
	if setup.Sentinel {
		w.settings["QUEUE_URL"] = w.Sentinel.URL()
	} else {
		w.proxy, w.upstream = proxy(tb, addr), addr
		w.settings["QUEUE_URL"] = "redis://" + w.proxy.Listen
	}
	if setup.Cluster {
		w.Cluster = redistest.StartCluster(tb, 3, true)
		w.settings["RATE_LIMIT_REDIS_URL"] = w.Cluster.URL()
	}
	maps.Copy(w.settings, setup.Settings)
	w.API = e2e.StartAPI(tb, w.apiQueue)
	for range max(1, setup.Gates) {
		w.Gates = append(w.Gates, e2e.StartGate(tb, w.settings))
	}
	w.StartEnvoy(tb)
	w.ensureWorker(tb)
	return w
}

// StartEnvoy starts an Envoy in front of the gates, where callers go from now on.
func (w *World) StartEnvoy(tb testing.TB) {
	tb.Helper()
	addrs := make([]string, 0, len(w.Gates))
	for _, g := range w.Gates {
		addrs = append(addrs, g.GRPC)
	}
	e := e2e.StartEnvoy(tb, w.config, w.API.Addr, addrs...)
	w.envoys = append(w.envoys, e)
	w.target.Store(e.Addr)
}

// Envoy is the one that runs.
func (w *World) Envoy() *e2e.Envoy { return w.envoys[len(w.envoys)-1] }

// ReplaceGate starts a gate at the address of gate i, which has ended.
func (w *World) ReplaceGate(tb testing.TB, i int) {
	tb.Helper()
	settings := maps.Clone(w.settings)
	settings["GRPC_ADDR"] = w.Gates[i].GRPC
	w.Gates[i] = e2e.StartGate(tb, settings)
}

// ensureWorker starts a worker for 40 jobs a second where none runs any more: SAQ's ends when Redis does.
func (w *World) ensureWorker(tb testing.TB) {
	tb.Helper()
	if w.worker == nil || !w.worker.Running() {
		w.worker = e2e.StartWorker(tb, w.apiQueue, w.Direct, 4)
	}
}

// proxy starts one in front of upstream.
func proxy(tb testing.TB, upstream string) *toxiproxy.Proxy {
	tb.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(server, "redis", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		tb.Fatalf("start the proxy: %v", err)
	}
	tb.Cleanup(p.Stop)
	return p
}

// Spoil adds a toxic of this kind to what Redis answers the gates.
func (w *World) Spoil(tb testing.TB, kind, attributes string) {
	tb.Helper()
	toxic := fmt.Sprintf(`{"type": %q, "attributes": %s}`, kind, attributes)
	if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		tb.Fatalf("add %s to the proxy: %v", toxic, err)
	}
}

// Reconnect ends the connections of the gates. The proxy may not put a toxic on a connection that is busy at that moment;
// those that come after it have the toxic.
func (w *World) Reconnect(tb testing.TB) {
	tb.Helper()
	must(tb, w.Direct.ClientKillByFilter(tb.Context(), "LADDR", w.upstream).Err())
}

// Mend takes all toxics away.
func (w *World) Mend(testing.TB) { w.proxy.Toxics.ResetToxics(context.Background()) }

// degraded says whether any gate decides without Redis, by what the gate tells of itself.
func (w *World) degraded(tb testing.TB) bool {
	tb.Helper()
	for _, g := range w.Gates {
		m := g.Metrics(tb)
		if m[`refrakt_gate_breaker_open{breaker="limiter"}`] == 1 || m[`refrakt_gate_breaker_open{breaker="queue"}`] == 1 || m[`refrakt_gate_queue_state{state="unknown"}`] == 1 {
			return true
		}
	}
	return false
}

// awaitOpen waits until every gate decides by its own buckets and, if queue says so, does not ask about the queue.
func (w *World) awaitOpen(tb testing.TB, queue bool) {
	tb.Helper()
	polltest.Until(tb, time.Minute, "the breakers to open", func() error {
		for _, g := range w.Gates {
			m := g.Metrics(tb)
			if m[`refrakt_gate_breaker_open{breaker="limiter"}`] != 1 {
				return errors.New("that of the buckets is closed")
			}
			if queue && m[`refrakt_gate_breaker_open{breaker="queue"}`] != 1 {
				return errors.New("that of the queue is closed")
			}
		}
		return nil
	})
}
