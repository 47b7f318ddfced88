package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// dryQueue is a queue that is looked at, and that no job is counted into.
type dryQueue struct {
	authz.Queue

	places *saq.Queue
	window time.Duration // of admissions
}

// Admit says what an admission would say now. How long the caller's own jobs need to leave is
// not looked at: a caller at its share is told to wait until all that are pending have left.
func (q dryQueue) Admit(ctx context.Context, a backpressure.Asker) backpressure.Verdict {
	place := q.Place(a)
	if place.Limit == 0 {
		return q.Admitted(a, backpressure.Admission{Admitted: true}, false)
	}
	held, pending, err := q.places.Held(ctx, place.Caller, q.window)
	if err != nil {
		return q.Admitted(a, backpressure.Admission{}, true)
	}
	most := int64(place.MayHold(pending + 1))
	full := pending >= int64(place.Limit) || place.Share > 0 && most == 0
	over := !full && place.Share > 0 && held >= most
	return q.Admitted(a, backpressure.Admission{Admitted: !full && !over, OverShare: over, Pending: pending}, false)
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
		watched[name] = authz.WatchedQueue{Queue: dryQueue{q.Queue, saq.New(name, in.queueRedis), in.cfg.Queue.AdmissionWindow}}
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
	v := verdictOf(resp)
	v.Buckets = buckets
	return c.report(p.stdout, v)
}
