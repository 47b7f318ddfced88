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

// Queue knows the state of the job queue; see [backpressure.Monitor].
type Queue interface {
	// Verdict is the state as last seen.
	Verdict() backpressure.Verdict
	// Preview is the same for a request that Admit decides on in the end.
	Preview() backpressure.Verdict
	// Admit looks once more and, if the queue is not full, counts one job in.
	Admit(ctx context.Context) backpressure.Verdict
	// Turn is how long a caller that is denied for a full queue is to wait, of
	// whom the verdict said retryAfter.
	Turn(caller string, retryAfter time.Duration) time.Duration
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

	s.metrics.duration.Observe(time.Since(start).Seconds())
	s.metrics.decisions.WithLabelValues(string(d.Policy), verdict(d.Denied), string(d.Reason)).Inc()
	if d.Shadow {
		s.metrics.shadowed.WithLabelValues(string(d.Policy)).Inc()
	}
	if s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.DebugContext(ctx, "decided", "verdict", verdict(d.Denied), "reason", d.Reason, "policy", d.Policy,
			"tier", d.Tier, "wait_ms", d.Wait.Milliseconds(), "shadow", d.Shadow)
	}
	return answer(d, s.cfg.Headers).Response(), nil
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
			d.apply(finding{reason: ReasonInternal, wait: failureRetry, fails: s.failsClosed()}, false)
		}
	}()
	r := envoy.Parse(req)
	s.decide(ctx, r, &d, overloaded)
	if d.Denied && d.Reason == ReasonQueueFull {
		d.Wait = s.queue.Turn(s.callers.identify(r).IP, d.Wait)
	}
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
	s.doubtEnvoy(ctx, r, d.Policy)
	switches := s.switches.Load()
	queueShadow, limitShadow := switches.QueueShadow.has(d.Policy), switches.LimitShadow.has(d.Policy)
	switch {
	case d.Policy == PolicyNone:
		d.Reason = ReasonNotGuarded
		return
	case d.Policy == PolicyUnknown:
		s.complain(ctx, "the policy named by Envoy's route is unknown; all its requests are denied", "policy", r.Policy)
		d.apply(finding{reason: ReasonUnknownPolicy, wait: failureRetry, fails: true}, false)
		return
	case isPreflight(r):
		d.Reason = ReasonPreflight
		return
	case overloaded:
		s.complain(ctx, "more Checks at once than MAX_CONCURRENT_CHECKS; those beyond are decided by the failure modes")
		d.apply(finding{reason: ReasonOverloaded, wait: failureRetry, fails: s.failsClosed()}, queueShadow && limitShadow)
		return
	}

	if s.queue != nil && d.apply(queueFinding(s.lookAtQueue(d.Policy), s.cfg.QueueFailureMode), queueShadow) {
		return
	}
	keys, taken := s.take(ctx, r, d, limitShadow)
	if d.Denied {
		if s.queue != nil && addsJob(d.Policy) && !queueShadow {
			s.queueFirst(d)
		}
		return
	}
	if s.queue != nil && addsJob(d.Policy) &&
		d.apply(queueFinding(s.queue.Admit(ctx), s.cfg.QueueFailureMode), queueShadow) && taken {
		s.giveBack(ctx, d, keys)
	}
}

// addsJob says whether a request is sure to become a job. One to the assistant may.
func addsJob(p Policy) bool { return p == PolicyRun }

func (s *Server) lookAtQueue(p Policy) backpressure.Verdict {
	if addsJob(p) {
		return s.queue.Preview()
	}
	return s.queue.Verdict()
}

// queueFirst keeps the order of the checks for a request that its buckets turned
// away while Preview had left a full queue to Admit: the client hears of the queue.
func (s *Server) queueFirst(d *Decision) {
	if f := queueFinding(s.queue.Verdict(), s.cfg.QueueFailureMode); f.fails {
		d.apply(f, false)
		d.Bucket = nil // as for any request that the queue turns away
	}
}

// take asks the limiter for the caller's tokens and enters the outcome into d.
func (s *Server) take(ctx context.Context, r envoy.Request, d *Decision, shadow bool) (keys []string, taken bool) {
	if !s.cfg.LimitEnabled {
		return nil, false
	}
	caller := s.callers.identify(r)
	s.metrics.callers.WithLabelValues(string(caller.IPFrom), string(caller.UserFrom)).Inc()
	switch {
	case caller.IP == unknownIP:
		s.metrics.unknownIP.Inc()
	case caller.IPFrom == IPFromProxy:
		s.doubt(ctx, doubtClient)
	}
	if caller.UserFrom == UserAmbiguous {
		s.metrics.ambiguous.Inc()
	}
	d.Tier = caller.Tier
	keys = append(keys, quota.Key(string(d.Policy), caller.IP))
	if caller.User != "" {
		keys = append(keys, quota.Key(string(d.Policy), caller.User))
	}
	result, err := s.limiter.Take(ctx, s.limit(d.Policy, caller.Tier), keys...)
	if err == nil {
		d.Bucket = &result
	}
	d.apply(limitFinding(result, err, s.cfg.LimitFailureMode, failureRetry), shadow)
	return keys, err == nil && result.Taken
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
