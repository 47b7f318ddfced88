package authz

import (
	"context"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// decide makes the checks in a fixed order. Checks that cost nothing come first, and
// the queue before the buckets: a request that the queue refuses costs no token.
func (s *Server) decide(ctx context.Context, r envoy.Request, d *Decision, overloaded bool) {
	d.Policy, d.Reason = classify(r.Policy, r.Path), ReasonOK
	switches := s.switches.Load()
	queueShadow, limitShadow := switches.QueueShadow.has(d.Policy), switches.LimitShadow.has(d.Policy)
	switch {
	case d.Policy == PolicyNone:
		d.Reason = ReasonNotGuarded
		return
	case d.Policy == PolicyUnknown:
		s.complain(ctx, ReasonUnknownPolicy, "the policy named by Envoy's route is unknown; all its requests are denied", "policy", r.Policy)
		d.apply(finding{reason: ReasonUnknownPolicy, wait: after(failureRetry), fails: true}, false)
		return
	case isPreflight(r):
		d.Reason = ReasonPreflight
		return
	case overloaded:
		s.complain(ctx, ReasonOverloaded, "more Checks at once than MAX_CONCURRENT_CHECKS; the failure modes decide those above it")
		d.apply(finding{reason: ReasonOverloaded, wait: after(failureRetry), fails: s.failsClosed()}, queueShadow && limitShadow)
		return
	}

	caller := s.callers.identify(r)
	d.Caller = caller
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
			// The queue comes first: a client that both refuse is told of the queue alone.
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
			s.refund(ctx, d, keys)
		}
	}
}

// take asks the limiter for the caller's tokens. It returns the finding of the buckets
// and the keys of the buckets that were charged.
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

// refund puts back the tokens of a request that Admit refused. If that fails, the caller
// has paid for nothing: that is the safe side.
func (s *Server) refund(ctx context.Context, d *Decision, keys []string) {
	if err := s.limiter.Refund(ctx, *d.Bucket, keys...); err != nil {
		s.log.DebugContext(ctx, "tokens not refunded", "error", err)
	}
	d.Bucket = nil // its state is no longer known
}

// addsJob says whether each request of a policy becomes a job. Some requests to the
// assistant do, and the gate can't tell which.
func addsJob(p Policy) bool { return p == PolicyRun }

// isPreflight says whether a request is a CORS preflight (fetch.spec.whatwg.org): the
// browser asks which requests it may send.
func isPreflight(r envoy.Request) bool {
	_, origin := r.Header("origin")
	_, method := r.Header("access-control-request-method")
	return r.Method == "OPTIONS" && origin > 0 && method > 0
}
