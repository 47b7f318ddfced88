package authz

import (
	"context"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

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
		s.complain(ctx, ReasonUnknownPolicy, "the policy named by Envoy's route is unknown; all its requests are denied", "policy", r.Policy)
		d.apply(finding{reason: ReasonUnknownPolicy, wait: after(failureRetry), fails: true}, false)
		return
	case isPreflight(r):
		d.Reason = ReasonPreflight
		return
	case overloaded:
		s.complain(ctx, ReasonOverloaded, "more Checks at once than MAX_CONCURRENT_CHECKS; those beyond are decided by the failure modes")
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
			s.refund(ctx, d, keys)
		}
	}
}

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

// refund returns the tokens of a request that the queue turned away after all.
// If that fails the caller has paid for nothing, which is the safe side.
func (s *Server) refund(ctx context.Context, d *Decision, keys []string) {
	if err := s.limiter.Refund(ctx, *d.Bucket, keys...); err != nil {
		s.log.DebugContext(ctx, "tokens not refunded", "error", err)
	}
	d.Bucket = nil // its state is not known any more
}

// addsJob says whether a request is sure to become a job. One to the assistant may.
func addsJob(p Policy) bool { return p == PolicyRun }

// isPreflight says that a browser only asks whether it may ask (fetch.spec.whatwg.org,
// CORS-preflight request).
func isPreflight(r envoy.Request) bool {
	_, origin := r.Header("origin")
	_, method := r.Header("access-control-request-method")
	return r.Method == "OPTIONS" && origin > 0 && method > 0
}
