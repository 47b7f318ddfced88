// Package e2e runs the gate among the real things: Envoy in front, the example API behind, Redis and SAQ beside it.
// The files without _test hold the harness, which other test packages of this module use too.
package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// Options is what differs between stacks; the zero value is one Envoy, one gate over TCP, one Redis.
type Options struct {
	Settings map[string]string // of the gates, besides addresses and QUEUE_URL
	Config   string            // of Envoy; "" is ShippedConfig
	Gates    int               // 0 is 1
	OneEnvoy bool              // several gates behind one Envoy, not each behind its own
	Unix     bool              // Envoy reaches the gate by a unix socket
	NoRedis  bool              // embedded store, an API without queue
}

// Stack is everything a request meets. Its processes end with the test.
type Stack struct {
	*Envoy // the first one: s.Post is a request to the stack

	Envoys   []*Envoy
	Gates    []*Gate
	API      *API
	Redis    *redistest.Server // nil with NoRedis
	QueueURL string
	Client   *redis.Client // of Redis, for looking and arranging
}

// Start starts a stack.
func Start(tb testing.TB, o Options) *Stack {
	tb.Helper()
	s := &Stack{}
	settings := maps.Clone(o.Settings)
	if settings == nil {
		settings = map[string]string{}
	}
	if !o.NoRedis {
		s.Redis = redistest.Start(tb)
		s.QueueURL = s.Redis.URL()
		s.Client = s.Redis.Client(tb)
		settings["QUEUE_URL"] = s.QueueURL
	}
	s.API = StartAPI(tb, s.QueueURL)

	addrs := make([]string, 0, max(1, o.Gates))
	for i := range max(1, o.Gates) {
		if o.Unix {
			settings["GRPC_ADDR"] = "unix://" + filepath.Join(shortTempDir(tb), fmt.Sprintf("gate%d.sock", i))
		}
		g := StartGate(tb, settings)
		s.Gates = append(s.Gates, g)
		addrs = append(addrs, g.GRPC)
	}

	config := o.Config
	if config == "" {
		config = ShippedConfig
	}
	if o.OneEnvoy {
		s.Envoys = []*Envoy{StartEnvoy(tb, config, s.API.Addr, addrs...)}
	} else {
		for _, addr := range addrs {
			s.Envoys = append(s.Envoys, StartEnvoy(tb, config, s.API.Addr, addr))
		}
	}
	s.Envoy = s.Envoys[0]
	return s
}

// StartWorker starts a SAQ worker on the stack's queue.
func (s *Stack) StartWorker(tb testing.TB, concurrency int) *proctest.Process {
	tb.Helper()
	return StartWorker(tb, s.QueueURL, s.Client, concurrency)
}

// Enqueue enqueues jobs by SAQ itself, past the gate.
func (s *Stack) Enqueue(tb testing.TB, j Jobs) {
	tb.Helper()
	Enqueue(tb, s.QueueURL, j)
}
