// Package authz decides one request: a CheckRequest comes in, a verdict goes out.
// Read [Server.Check] and decide (decide.go) from top to bottom. They ask what kind of
// request it is (route.go), who sent it (identity.go), what the queue and the buckets
// say (decision.go), and write the reply (record.go, answer.go).
package authz

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/envoy"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Limiter takes tokens from the buckets of a caller; see [quota.Store].
type Limiter interface {
	Take(ctx context.Context, limit quota.Limit, keys ...string) (quota.Result, error)
	Refund(ctx context.Context, r quota.Result, keys ...string) error
}

// Queue says whether the job queue can take another job; see [backpressure.Monitor].
type Queue interface {
	// Shed judges the queue by the newest sample, without I/O. caller is the subject of
	// the caller's address. addsJob says that Admit will be asked about this request.
	Shed(caller string, addsJob bool) backpressure.Verdict
	// Admit asks Redis whether the queue is full. If it is not, Admit counts one job in.
	Admit(ctx context.Context, caller string) backpressure.Verdict
}

// Limits has the limits of each policy.
type Limits struct{ Run, Assistant quota.Tiers }

// failureRetry is the Retry-After of a request that the gate could not decide.
const failureRetry = 5 * time.Second

// Server implements Envoy's external authorization service.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	cfg        Config
	callers    identifier
	limits     Limits
	limiter    Limiter
	queue      Queue
	metrics    *metrics
	log        *slog.Logger
	switches   atomic.Pointer[Switches]
	failures   map[Policy]outcome // never changed; see newFailures
	complaints complaints
	warned     sync.Map // the config warnings that were logged
	coverage   coverage
	underWay   atomic.Int64
}

var (
	_ authv3.AuthorizationServer = (*Server)(nil)
	_ envoy.Checker              = (*Server)(nil)
)

// New returns a server. With a nil queue there is no queue check.
func New(cfg Config, limits Limits, limiter Limiter, queue Queue, reg prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{
		cfg:     cfg,
		callers: newIdentifier(cfg),
		limits:  limits,
		limiter: limiter,
		queue:   queue,
		log:     log,
	}
	s.metrics = newMetrics(reg, s, cfg.UserSources)
	s.failures = s.newFailures()
	s.Switch(cfg.Switches)
	return s
}

// Switch puts other switches in force for the requests to come.
func (s *Server) Switch(to Switches) {
	s.switches.Store(&to)
	s.metrics.show(to)
}

// GuardsNothing says that Envoy has asked about many requests since the start and that
// none of them was guarded, so no limit and no queue check applies; see coverage. It may
// be called at any time.
func (s *Server) GuardsNothing() bool { return s.coverage.guardsNothing() }

// Check answers Envoy. The answer is always a verdict, never an error: after an error
// Envoy's failure_mode_allow would decide. A part of Check that panics has no effect on
// the parts before it.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.check(ctx, func() (envoy.Request, error) { return envoy.Parse(req), nil })
}

// Answer is Check for a request in its wire form. It returns an error only if that is no
// protobuf.
func (s *Server) Answer(ctx context.Context, c *envoy.Call) (*authv3.CheckResponse, error) {
	return s.check(ctx, c.Read)
}

// check answers the request that read returns. If read returns an error, check does too.
func (s *Server) check(ctx context.Context, read func() (envoy.Request, error)) (*authv3.CheckResponse, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.budget(ctx))
	defer cancel()
	overloaded := s.underWay.Add(1) > int64(s.cfg.MaxChecks)
	defer s.underWay.Add(-1)

	var r envoy.Request
	var unreadable error
	d := Decision{Policy: PolicyRun} // until the policy is known
	decided := s.guard(ctx, "deciding", func() {
		if r, unreadable = read(); unreadable == nil {
			s.decide(ctx, r, &d, overloaded)
		}
	})
	if unreadable != nil {
		return nil, unreadable
	}
	out, ok := s.failures[d.Policy]
	if !ok {
		out = s.failures[PolicyRun]
	}
	if decided {
		s.guard(ctx, "answering", func() { out = conclude(d, s.cfg.Headers) })
	}

	s.guard(ctx, "counting", func() { s.metrics.count(out.decision, time.Since(start)) })
	s.guard(ctx, "logging", func() {
		if s.log.Enabled(ctx, slog.LevelDebug) {
			s.log.LogAttrs(ctx, slog.LevelDebug, "decided", attributes(out.record)...)
		}
	})
	s.guard(ctx, "looking for config warnings", func() { s.diagnose(ctx, r, out.decision) })
	return out.response, nil
}

// outcome is a decision with its record and with the response to Envoy.
type outcome struct {
	decision Decision
	record   *gatev1.Decision
	response *authv3.CheckResponse
}

func conclude(d Decision, form HeaderForm) outcome {
	r := record(d)
	return outcome{d, r, answer(d, r, form).Response()}
}

// newFailures returns the outcome, by policy, of a request whose decision or answer
// panicked. These outcomes are made at the start, so that none of it can fail later.
func (s *Server) newFailures() map[Policy]outcome {
	failures := make(map[Policy]outcome)
	for _, p := range []Policy{PolicyRun, PolicyAssistant, PolicyUnknown, PolicyNone} {
		d := Decision{Policy: p, Reason: ReasonOK}
		d.apply(finding{reason: ReasonInternal, wait: after(failureRetry), fails: s.failsClosed()}, false)
		failures[p] = conclude(d, s.cfg.Headers)
	}
	return failures
}

// budget is how long this Check may wait for Redis: REDIS_TIMEOUT, but at most three
// quarters of the time that Envoy gives. The rest is for the way back.
func (s *Server) budget(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return s.cfg.RedisTimeout
	}
	return min(s.cfg.RedisTimeout, time.Until(deadline)*3/4)
}

// failsClosed says whether a request is denied if the gate could not check anything.
// The failure mode of the limits counts, or that of the queue while limits are off. The
// mode local denies: there are limits to keep, and no bucket was asked.
func (s *Server) failsClosed() bool {
	if s.cfg.LimitEnabled {
		return s.cfg.LimitFailureMode != FailAllow
	}
	return s.cfg.QueueFailureMode != FailAllow
}
