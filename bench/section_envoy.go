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
	return b.behindEnvoy(g, "")
}

func (b *bench) behindEnvoy(g *process.Group, api string) error {
	gates, err := b.plainGates(g)
	if err != nil {
		return err
	}
	answer, err := answerOf(b.ctx, gates[len(gates)-1])
	if err != nil {
		return err
	}
	noop, err := servers.StartNoop(g, "noop", false, answer)
	if err != nil {
		return err
	}
	contenders := make([]measure.Contender, 0, len(gates)+2)
	add := func(name, of, path string, behind *servers.Server) error {
		e := servers.Envoy{Binary: b.envoy, Config: filepath.Join(b.root, "envoy/envoy.yaml"), Workers: b.workers, API: api}
		s, err := e.Start(g, fmt.Sprintf("envoy-%d", len(contenders)), behind)
		if err != nil {
			return err
		}
		contenders = append(contenders, measure.Contender{Name: name, Of: of, Servers: []*servers.Server{s}, Behind: []*process.Process{behind.Process},
			Traffic: load.Web(path, work.ManyCallers), Conns: envoyConns, Warm: work.BucketLife})
		return nil
	}
	if err := add(noopThroughEnvoy, "", "/assistant", noop); err != nil {
		return err
	}
	for i, s := range gates {
		of := ""
		if i > 0 {
			of = b.gates[0].Name
		}
		if err := add(b.gates[i].Name, of, "/assistant", s); err != nil {
			return err
		}
	}
	if err := add("Envoy alone: a route without the filter", "", "/other", noop); err != nil {
		return err
	}
	return b.compareEnvoys(g, contenders)
}

func (b *bench) compareEnvoys(g *process.Group, contenders []measure.Contender) error {
	for _, n := range []int{1, 50} {
		t, err := b.compare(g, "envoy", n, contenders)
		if err != nil {
			return err
		}
		gate, noop := t.Index(b.newest().Name), t.Index(noopThroughEnvoy)
		if n == 1 {
			b.report.Note(report.EnvoyP50, "1 in flight", t.Pairs(gate, noop, func(a, b measure.Sample) (float64, bool) { return a.P50 - b.P50, true }))
		} else {
			b.report.Note(report.EnvoyRate, fmt.Sprintf("%d in flight", n), t.Ratio(gate, noop, measure.Rate))
		}
	}
	return nil
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
