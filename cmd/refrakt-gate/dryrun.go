package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// dryQueue is a queue that is looked at, and that no job is counted into.
type dryQueue struct{ authz.Queue }

// Admit says what the newest sample says.
func (q dryQueue) Admit(_ context.Context, a backpressure.Asker) backpressure.Verdict {
	return q.Shed(a, false)
}

// decide answers a request in this process, as a gate would: by the policies of the
// environment, the buckets in Redis and a new sample of each queue. It takes no token and
// no place. It also returns the state of the buckets that the request would be charged to.
func (in *inspection) decide(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, []shownBucket, error) {
	log := slog.New(slog.DiscardHandler)
	watched := map[string]authz.WatchedQueue{}
	if in.queueRedis != nil {
		queues := &queues{cfg: in.cfg, rdb: in.queueRedis, reg: prometheus.NewRegistry(), log: log}
		watched, _ = queues.apply(in.cfg.policies.Queues)
		if err := queues.sample(ctx); err != nil {
			return nil, nil, err
		}
	}
	for name, q := range watched {
		watched[name] = authz.WatchedQueue{Queue: dryQueue{q.Queue}}
	}
	rules := authz.Rules{Policies: in.set, Queues: watched}
	server := authz.New(in.cfg.Authz, rules, quota.Dry{Buckets: in.buckets}, authz.Traces{}, prometheus.NewRegistry(), log)
	shown, err := in.look(ctx, server.Charged(req)) // first: an answer hides that Redis failed
	if err != nil {
		return nil, nil, err
	}
	resp, err := server.Check(ctx, req)
	return resp, shown, err
}

// runDry is the command with --dry-run.
func (c checkCmd) runDry(p *process) error {
	if c.Addr != "" || c.TLS != (clientTLS{}) {
		return exit{exitUsage, errors.New("--addr and the --tls flags say how to reach a gate, and with --dry-run no gate is asked")}
	}
	in, err := inspect(p.env)
	if err != nil {
		return err
	}
	defer in.close()
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	resp, buckets, err := in.decide(ctx, c.request())
	if err != nil {
		return exit{exitUsage, fmt.Errorf("look: %w", err)}
	}
	allowed := report(p.stdout, resp)
	if len(buckets) > 0 {
		fmt.Fprintln(p.stdout)
		if err := printBuckets(p.stdout, buckets); err != nil {
			return exit{exitUsage, err}
		}
	}
	if !allowed {
		return exit{code: exitDenied}
	}
	return nil
}
