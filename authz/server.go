// Package authz is the decision: Envoy's question in, the verdict out. A
// request's way is read top to bottom in [Server.Check] and decide: what kind of
// request it is (route.go), who sent it (identity.go), what the queue and the
// buckets say (decision.go), and the reply (answer.go).
package authz

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Limiter takes tokens; see [quota.Store].
type Limiter interface {
	Take(ctx context.Context, limit quota.Limit, keys ...string) (quota.Result, error)
	Give(ctx context.Context, r quota.Result, keys ...string) error
}

// Queue says whether the job queue can take another job; see [backpressure.Monitor].
type Queue interface {
	// Shed judges the queue by what was seen last, without I/O. caller is the subject
	// of the caller's address; addsJob says that Admit has the last word on this request.
	Shed(caller string, addsJob bool) backpressure.Verdict
	// Admit looks at the queue now and, if it is not full, counts one job in.
	Admit(ctx context.Context, caller string) backpressure.Verdict
}

// Limits are the sizes of the buckets, by policy.
type Limits struct{ Run, Assistant quota.Tiers }

// failureRetry is what a client is told to wait when the gate itself can't decide.
const failureRetry = 5 * time.Second

// Server implements Envoy's external authorization service.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	cfg           Config
	callers       identifier
	limits        Limits
	limiter       Limiter
	queue         Queue
	metrics       *metrics
	log           *slog.Logger
	switches      atomic.Pointer[Switches]
	lastComplaint atomic.Int64
	doubted       sync.Map // the kinds of doubt that were warned of
	underWay      atomic.Int64
}

var _ authv3.AuthorizationServer = (*Server)(nil)

// New returns a server. A nil queue means that there is none to look after.
func New(cfg Config, limits Limits, limiter Limiter, queue Queue, reg prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{
		cfg:     cfg,
		callers: newIdentifier(cfg),
		limits:  limits,
		limiter: limiter,
		queue:   queue,
		log:     log,
	}
	s.metrics = newMetrics(reg, &s.underWay, cfg.UserSources)
	s.Switch(cfg.Switches)
	return s
}

// Switch puts other switches in force, for requests that come from now on.
func (s *Server) Switch(to Switches) {
	s.switches.Store(&to)
	s.metrics.show(to)
}

// Check answers Envoy. The answer is always a verdict, never an error: an error
// would leave the decision to Envoy's failure_mode_allow.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.budget(ctx))
	defer cancel()

	d := s.decideSafely(ctx, req, s.underWay.Add(1) > int64(s.cfg.MaxChecks))
	s.underWay.Add(-1)
	rec := record(d)

	s.metrics.duration.Observe(time.Since(start).Seconds())
	s.metrics.decisions.WithLabelValues(string(d.Policy), verdict(d.Denied), string(d.Reason)).Inc()
	if d.Shadow {
		s.metrics.shadowed.WithLabelValues(string(d.Policy)).Inc()
	}
	if s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.LogAttrs(ctx, slog.LevelDebug, "decided", attributes(rec)...)
	}
	return answer(d, rec, s.cfg.Headers).Response(), nil
}

// budget is how long this Check may wait for Redis: a quarter of the time that
// Envoy gives is left for the answer to get back.
func (s *Server) budget(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return s.cfg.RedisTimeout
	}
	return min(s.cfg.RedisTimeout, time.Until(deadline)*3/4)
}

// decideSafely decides and turns a panic into a verdict by the failure modes. With
// overloaded nothing is asked that could take time.
func (s *Server) decideSafely(ctx context.Context, req *authv3.CheckRequest, overloaded bool) (d Decision) {
	d.Policy = PolicyRun // as long as nothing is known
	defer func() {
		if p := recover(); p != nil {
			s.complain(ctx, "panic while deciding", "panic", p, "stack", string(debug.Stack()))
			d = Decision{Policy: d.Policy, Reason: ReasonOK}
			d.apply(finding{reason: ReasonInternal, wait: after(failureRetry), fails: s.failsClosed()}, false)
		}
	}()
	r := envoy.Parse(req)
	s.decide(ctx, r, &d, overloaded)
	s.doubtEnvoy(ctx, r, d)
	return d
}

// failsClosed says whether a request is denied that nothing could be found out
// about. Only a check that is asked to let such requests through does; with local
// buckets there is a limit to keep, and none was asked.
func (s *Server) failsClosed() bool {
	if s.cfg.LimitEnabled {
		return s.cfg.LimitFailureMode != FailAllow
	}
	return s.cfg.QueueFailureMode != FailAllow
}

// decide goes through the checks in their fixed order: what costs nothing first,
// and no token is spent on a request that the queue turns away.
func (s *Server) decide(ctx context.Context, r envoy.Request, d *Decision, overloaded bool) {
	d.Policy, d.Reason = classify(r.Policy, r.Path), ReasonOK
	switches := s.switches.Load()
	queueShadow, limitShadow := switches.QueueShadow.has(d.Policy), switches.LimitShadow.has(d.Policy)
	switch {
	case d.Policy == PolicyNone:
		d.Reason = ReasonNotGuarded
		return
	case d.Policy == PolicyUnknown:
		s.complain(ctx, "the policy named by Envoy's route is unknown; all its requests are denied", "policy", r.Policy)
		d.apply(finding{reason: ReasonUnknownPolicy, wait: after(failureRetry), fails: true}, false)
		return
	case isPreflight(r):
		d.Reason = ReasonPreflight
		return
	case overloaded:
		s.complain(ctx, "more Checks at once than MAX_CONCURRENT_CHECKS; those beyond are decided by the failure modes")
		d.apply(finding{reason: ReasonOverloaded, wait: after(failureRetry), fails: s.failsClosed()}, queueShadow && limitShadow)
		return
	}

	caller := s.callers.identify(r)
	var queued finding
	provisional := false
	if s.queue != nil {
		v := s.queue.Shed(caller.IP, addsJob(d.Policy))
		queued, provisional = queueFinding(v, s.cfg.QueueFailureMode), v.Provisional
	}
	if !provisional && d.apply(queued, queueShadow) {
		return
	}

	var keys []string // of the buckets that were charged
	if s.cfg.LimitEnabled {
		limited, paid := s.take(ctx, caller, d)
		if limited.fails && !limitShadow && provisional && !queueShadow {
			// The queue comes first: a client that both turn away hears of the queue alone.
			limited, d.Bucket = queued, nil
		}
		if d.apply(limited, limitShadow) {
			return
		}
		keys = paid
	}

	if s.queue != nil && addsJob(d.Policy) {
		v := s.queue.Admit(ctx, caller.IP)
		if d.apply(queueFinding(v, s.cfg.QueueFailureMode), queueShadow) && len(keys) > 0 {
			s.giveBack(ctx, d, keys)
		}
	}
}

// addsJob says whether a request is sure to become a job. One to the assistant may.
func addsJob(p Policy) bool { return p == PolicyRun }

// take asks the limiter for the caller's tokens. It returns what the buckets say against
// the request, and the keys of those that were charged.
func (s *Server) take(ctx context.Context, caller Caller, d *Decision) (limited finding, charged []string) {
	s.metrics.callers.WithLabelValues(string(caller.IPFrom), string(caller.UserFrom)).Inc()
	if caller.IP == unknownIP {
		s.metrics.unknownIP.Inc()
	}
	if caller.UserFrom == UserAmbiguous {
		s.metrics.ambiguous.Inc()
	}
	d.Charged = caller
	keys := []string{quota.Key(string(d.Policy), caller.IP)}
	if caller.User != "" {
		keys = append(keys, quota.Key(string(d.Policy), caller.User))
	}
	result, err := s.limiter.Take(ctx, s.limit(d.Policy, caller.Tier), keys...)
	if err == nil {
		d.Bucket = &result
	}
	if err == nil && result.Taken {
		charged = keys
	}
	return limitFinding(result, err, s.cfg.LimitFailureMode, failureRetry), charged
}

func (s *Server) limit(p Policy, t Tier) quota.Limit {
	tiers := s.limits.Run
	if p == PolicyAssistant {
		tiers = s.limits.Assistant
	}
	if t == TierPremium {
		return tiers.Premium
	}
	return tiers.Plain
}

// giveBack returns the tokens of a request that the queue turned away after all.
// If that fails the caller has paid for nothing, which is the safe side.
func (s *Server) giveBack(ctx context.Context, d *Decision, keys []string) {
	if err := s.limiter.Give(ctx, *d.Bucket, keys...); err != nil {
		s.log.DebugContext(ctx, "tokens not given back", "error", err)
	}
	d.Bucket = nil // its state is not known any more
}

// isPreflight says that a browser only asks whether it may ask (fetch.spec.whatwg.org,
// CORS-preflight request).
func isPreflight(r envoy.Request) bool {
	_, origin := r.Header("origin")
	_, method := r.Header("access-control-request-method")
	return r.Method == "OPTIONS" && origin > 0 && method > 0
}

// complain logs an error that could come with every request, once a minute.
func (s *Server) complain(ctx context.Context, msg string, args ...any) {
	now := time.Now().Unix()
	if last := s.lastComplaint.Load(); now-last >= 60 && s.lastComplaint.CompareAndSwap(last, now) {
		s.log.ErrorContext(ctx, msg, args...)
	}
}
