package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

const noopThroughEnvoy = "no-op with the gate's answer"

// envoyConns is how many connections clients have to Envoy.
const envoyConns = 10

// throughEnvoy compares what Envoy asks: a no-op that gives the gate's answer, and each gate.
func throughEnvoy(b *bench, g *process.Group) error {
	about := fmt.Sprintf("The shipped `envoy/envoy.yaml`, %d worker, HTTP/2 on %d connections. Envoy answers the requests that pass by itself. "+
		"The no-op decodes the request and gives the very answer of the gate, with the same headers and metadata. "+
		"CPU is Envoy's and that of the service behind.", b.workers, envoyConns)
	b.report.Section("Through Envoy", about)
	gates, err := b.plainGates(g)
	if err != nil {
		return err
	}
	answer, err := answerOf(b.ctx, gates[len(gates)-1])
	if err != nil {
		return err
	}
	noop, err := servers.StartNoop(g, "noop", servers.Standard, answer)
	if err != nil {
		return err
	}
	line := envoys{g: g, name: "envoy", envoy: b.shippedEnvoy("")}
	line.add(noopThroughEnvoy, "", "/assistant", noop)
	for i, s := range gates {
		line.add(b.gates[i].Name, b.before(i), "/assistant", s)
	}
	line.add("Envoy alone: a route without the filter", "", "/other", noop)
	if line.err != nil {
		return line.err
	}
	for _, n := range []int{1, 50} {
		t, err := b.compare(g, "envoy", n, line.contenders)
		if err != nil {
			return err
		}
		gate := t.Index(b.newest().Name)
		if n == 1 {
			b.report.Note(report.EnvoyP50, "1 in flight", t.Differences(gate, 0, measure.P50))
		} else {
			b.report.Note(report.EnvoyRate, fmt.Sprintf("%d in flight", n), t.Ratio(gate, 0, measure.Rate))
		}
	}
	if b.peer == "" {
		return nil
	}
	return b.besidePeer(g, noop, gates[len(gates)-1])
}

// besidePeer compares the gate with envoyproxy/ratelimit, each through Envoy with its own filter. Envoy's filter for
// that one does nothing where a route answers by itself, so an API is behind.
func (b *bench) besidePeer(g *process.Group, noop, gate *servers.Server) error {
	peer, err := servers.StartPeer(g, b.peer, "peer")
	if err != nil {
		return err
	}
	api, err := servers.StartWeb(g, "web")
	if err != nil {
		return err
	}
	line := envoys{g: g, name: "envoy-api", envoy: b.shippedEnvoy(api.Addr)}
	line.add(noopThroughEnvoy, "", "/assistant", noop)
	line.add(b.newest().Name, "", "/assistant", gate)
	line.envoy.RateLimit = true
	line.add("envoyproxy/ratelimit", "", "/assistant", peer)
	if line.err != nil {
		return line.err
	}
	b.report.Section("Through Envoy, beside envoyproxy/ratelimit", "Each with Envoy's filter for it, and an API in Go behind, whose CPU is not counted.")
	const inFlight = 50
	t, err := b.compare(g, "envoy, peer", inFlight, line.contenders)
	if err != nil {
		return err
	}
	b.report.Note(report.EnvoyPeer, fmt.Sprintf("%d in flight", inFlight), t.Ratio(1, 2, measure.Rate))
	return nil
}

// shippedEnvoy is Envoy as shipped, in front of an API or of none.
func (b *bench) shippedEnvoy(api string) servers.Envoy {
	return servers.Envoy{Binary: b.envoy, Config: filepath.Join(b.root, "envoy/envoy.yaml"), Workers: b.workers, API: api}
}

// envoys starts an Envoy for each contender, and keeps the first error.
type envoys struct {
	g          *process.Group
	name       string // of its programs
	envoy      servers.Envoy
	contenders []measure.Contender
	err        error
}

func (e *envoys) add(name, of, path string, behind *servers.Server) {
	if e.err != nil {
		return
	}
	s, err := e.envoy.Start(e.g, fmt.Sprintf("%s-%d", e.name, len(e.contenders)), behind)
	if err != nil {
		e.err = err
		return
	}
	c := measure.Contender{Name: name, Of: of, Servers: []*servers.Server{s}, Behind: []*process.Process{behind.Process},
		Traffic: load.Web(path, work.ManyCallers), Conns: envoyConns, Warm: work.Warm}
	if behind.Redis != nil {
		c.Warm = work.BucketLife
	}
	e.contenders = append(e.contenders, c)
}

// plainGates starts each gate with its defaults and a Redis of its own.
func (b *bench) plainGates(g *process.Group) (list []*servers.Server, err error) {
	for i, gate := range b.gates {
		r, err := servers.StartRedis(g, fmt.Sprintf("redis-%d", i))
		if err != nil {
			return nil, err
		}
		s, err := gate.Start(g, fmt.Sprintf("gate-%d", i), r)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// answerOf is what a server answers to a Check.
func answerOf(ctx context.Context, s *servers.Server) (*authv3.CheckResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to the gate: %w", err)
	}
	defer conn.Close()
	answer, err := authv3.NewAuthorizationClient(conn).Check(ctx, load.CheckRequest("assistant"))
	if err != nil {
		return nil, fmt.Errorf("ask the gate: %w", err)
	}
	if answer.GetStatus().GetCode() != 0 {
		return nil, fmt.Errorf("the gate refused the first request: %v", answer)
	}
	return answer, nil
}
