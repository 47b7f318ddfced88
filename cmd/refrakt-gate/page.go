package main

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/telemetry/page"
)

// newPage returns the page of the telemetry port. It asks the parts of the gate, which are
// there when it is served.
func (g *gate) newPage(metrics prometheus.Gatherer) *page.Page {
	route := g.cfg.Telemetry.MetricsRoute
	if g.cfg.Telemetry.BearerToken != "" {
		route = "" // they take the token only as a header that a browser does not send
	}
	return page.New(page.Source{
		Metrics:      metrics,
		MetricsRoute: route,
		Reasons: func() (all []page.Trouble) {
			for _, reason := range g.ready.Reasons() {
				all = append(all, page.Trouble{Key: reason.What, Text: reason.String()})
			}
			return all
		},
		Degraded: g.degraded,
		InForce: func() page.InForce {
			in := *g.inForce.Load()
			in.Switches = g.switches()
			return in
		},
		Decisions: func(each func(policy, verdict, reason string, n float64)) {
			g.checks.Decisions(each)
		},
		Depths: func() []page.Depth { return g.queues.depths() },
		Doubts: authz.Doubts(),
	}, g.log)
}

// tellPage has the page show that these policies are in force. It leaves out the exceptions
// for callers: their words have addresses and users.
func (g *gate) tellPage(file *policy.File) {
	shown := *file
	shown.Callers = nil
	in := page.InForce{Words: shown.Words(), LimitsOff: !g.cfg.Authz.LimitEnabled}
	if n := len(file.Callers); n > 0 {
		in.Words = append(in.Words, fmt.Sprintf("exceptions for callers: %d; refrakt-gate config shows them", n))
	}
	for _, p := range file.Policies {
		in.Policies = append(in.Policies, page.Policy{Name: p.Name, Queue: p.Queue, Limited: len(p.Buckets) > 0})
	}
	for _, q := range file.Queues {
		in.Queues = append(in.Queues, q.Name)
	}
	g.inForce.Store(&in)
}

// switches are the settings that switch checks, and what happens when a check can't be made.
func (g *gate) switches() []page.Switch {
	all := []page.Switch{
		{Name: "RATE_LIMIT_ENABLED", Value: strconv.FormatBool(g.cfg.Authz.LimitEnabled)},
		{Name: "RATE_LIMIT_FAILURE_MODE", Value: string(g.cfg.Authz.LimitFailureMode)},
		{Name: "QUEUE_FAILURE_MODE", Value: string(g.cfg.Authz.QueueFailureMode)},
	}
	if g.cfg.PolicyFile == "" {
		now := g.switched.Load()
		all = append(all, page.Switch{Name: "RATE_LIMIT_SHADOW", Value: now.LimitShadow.String()}, page.Switch{Name: "QUEUE_SHADOW", Value: now.QueueShadow.String()})
	}
	for _, file := range []page.Switch{{Name: "SWITCHES_FILE", Value: g.cfg.SwitchesFile}, {Name: "POLICY_FILE", Value: g.cfg.PolicyFile}} {
		if file.Value == "" {
			file.Value = "not set"
		}
		all = append(all, file)
	}
	return all
}
