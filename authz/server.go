// Package authz decides one request: a CheckRequest comes in, a verdict goes out.
// Read [Server.Check] and decide (decide.go) from top to bottom. They ask which policy
// the request falls under (rules.go), who sent it (identity.go), what the queue and the
// buckets say (decision.go), and write the reply (record.go, template.go, answer.go).
package authz

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Limiter takes tokens from the buckets of a caller; see [quota.Store].
type Limiter interface {
	Take(ctx context.Context, req quota.Request) (quota.Result, error)
	Refund(ctx context.Context, r quota.Result, buckets []quota.Bucket) error
}

// Queue says whether the job queue can take another job; see [backpressure.Monitor].
type Queue interface {
	// Shed judges the queue by the newest sample, without I/O. addsJob says that Admit will
	// be asked about this request.
	Shed(a backpressure.Asker, addsJob bool) backpressure.Verdict
	// Place is the place that a request asks for.
	Place(a backpressure.Asker) backpressure.Place
	// Admit asks Redis whether the queue has this place. If it has, Admit counts one job in.
	Admit(ctx context.Context, a backpressure.Asker) backpressure.Verdict
	// Admitted is the verdict where the limiter has asked the queue already.
	// unreadable says that the queue could not be read.
	Admitted(a backpressure.Asker, got backpressure.Admission, unreadable bool) backpressure.Verdict
}

// failureRetry is the Retry-After of a request that the gate could not decide.
const failureRetry = 5 * time.Second

// Server implements Envoy's external authorization service.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	cfg        Config
	callers    identifier
	limiter    Limiter
	metrics    *metrics
	traces     Traces
	log        *slog.Logger
	rules      atomic.Pointer[rules]
	complaints complaints
	warned     sync.Map // the config warnings that were logged
	coverage   coverage
	underWay   atomic.Int64
}

var (
	_ authv3.AuthorizationServer = (*Server)(nil)
	_ envoy.Checker              = (*Server)(nil)
)

// New returns a server that decides by these rules.
func New(cfg Config, in Rules, limiter Limiter, traces Traces, reg prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{
		cfg:     cfg,
		callers: newIdentifier(cfg),
		limiter: limiter,
		traces:  traces,
		log:     log,
	}
	s.metrics = newMetrics(reg, s, cfg.UserSources)
	s.Use(in)
	return s
}

// Use puts other rules in force for the requests to come. Requests under way keep the
// rules that they began with. It must not be called twice at the same time.
func (s *Server) Use(in Rules) {
	to := s.newRules(in)
	s.metrics.show(to)
	if before := s.rules.Swap(to); before != nil {
		s.metrics.forget(before.names(), to)
	}
}

// GuardsNothing says that Envoy has asked about many requests since the start and that
// none of them was guarded, so no limit and no queue check applies; see coverage. It may
// be called at any time.
func (s *Server) GuardsNothing() bool { return s.coverage.guardsNothing() }

// Check answers Envoy. The answer is always a verdict, never an error: after an error
// Envoy's failure_mode_allow would decide. A part of Check that panics has no effect on
// the parts before it.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	out, err := s.check(ctx,
		func() (envoy.Request, error) { return envoy.Parse(req), nil },
		func(reply *envoy.Reply) outcome { return outcome{response: reply.Response()} })
	return out.response, err
}

// Answer is Check for messages on the wire. It returns an error only if the request is no
// protobuf.
func (s *Server) Answer(ctx context.Context, c *envoy.Call) (*envoy.Answer, error) {
	out, err := s.check(ctx, c.Read, func(reply *envoy.Reply) outcome { return outcome{answer: reply.Answer()} })
	return out.answer, err
}

// check answers the request that read returns, in the form that send brings the reply
// into. If read returns an error, check returns that error.
func (s *Server) check(ctx context.Context, read func() (envoy.Request, error), send func(*envoy.Reply) outcome) (outcome, error) {
	start := time.Now()
	budget := newBudget(ctx, s.deadline(ctx, start))
	defer budget.stop()
	ctx = budget
	overloaded := s.underWay.Add(1) > int64(s.cfg.MaxChecks)
	defer s.underWay.Add(-1)

	var r envoy.Request
	var unreadable error
	var out outcome
	var span trace.Span // nil: this Check is not traced
	rules := s.rules.Load()
	d := &Decision{Policy: rules.first.name, Reason: ReasonOK} // until the policy is known
	decided := s.guard(ctx, "deciding", func() {
		if r, unreadable = read(); unreadable == nil {
			if s.traces.Tracer != nil {
				ctx, span = s.traces.start(ctx, start, r)
			}
			s.decide(ctx, rules, r, d, overloaded)
		}
	})
	if unreadable != nil {
		return outcome{}, unreadable
	}
	answer := drafts.Get().(*draft)
	defer drafts.Put(answer)
	record := &answer.record
	var t *template
	answered := decided && s.guard(ctx, "answering", func() {
		t = rules.templates.get(d.kind())
		answer.write(d, t, s.cfg.Headers)
		out = send(&answer.reply)
	})
	if !answered {
		failure := rules.failures[d.Policy]
		d, t, record, out = &failure.decision, failure.template, &failure.record, failure.outcome
	}

	s.guard(ctx, "counting", func() { s.metrics.count(d, t.counter, time.Since(start)) })
	s.guard(ctx, "logging", func() {
		if s.log.Enabled(ctx, slog.LevelDebug) {
			s.log.LogAttrs(ctx, slog.LevelDebug, "decided", attributes(record)...)
		}
	})
	s.guard(ctx, "looking for config warnings", func() { s.diagnose(ctx, rules, r, d) })
	if span != nil {
		s.guard(ctx, "tracing", func() { endSpan(span, d) })
	}
	return out, nil
}

// outcome is the response to Envoy, in the form that was asked for.
type outcome struct {
	response *authv3.CheckResponse
	answer   *envoy.Answer
}

// failure is what becomes of a request whose decision or answer panicked.
type failure struct {
	decision Decision
	template *template
	draft
	outcome
}

// newFailures returns the failures by policy. They are made together with the rules, so
// that none of it can fail later.
func (s *Server) newFailures(r *rules) map[string]*failure {
	failures := make(map[string]*failure)
	for _, p := range append(r.names(), policyUnknown, policyNone) {
		f := &failure{decision: Decision{Policy: p, Reason: ReasonOK}}
		f.decision.apply(finding{reason: ReasonInternal, wait: after(failureRetry), fails: s.failsClosed()}, false)
		f.template = r.templates.get(f.decision.kind())
		f.write(&f.decision, f.template, s.cfg.Headers)
		f.outcome = outcome{f.reply.Response(), f.reply.Answer()}
		failures[p] = f
	}
	return failures
}

// deadline is until when this Check may wait for Redis: for REDIS_TIMEOUT, but at most for
// three quarters of the time that Envoy gives. The rest is for the way back.
func (s *Server) deadline(ctx context.Context, start time.Time) time.Time {
	wait := s.cfg.RedisTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, deadline.Sub(start)*3/4)
	}
	return start.Add(wait)
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
