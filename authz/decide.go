package authz

import (
	"context"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
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

	caller := s.callers.identify(r, d.Policy)
	d.Caller = caller
	var queued finding
	provisional := false
	if s.queue != nil {
		v := s.queue.Shed(backpressure.Asker{Address: caller.IP, Sharer: caller.IP}, addsJob(d.Policy))
		queued, provisional = queueFinding(v, s.cfg.QueueFailureMode), v.Provisional
	}
	if !provisional && d.apply(queued, queueShadow) {
		return
	}

	wantsPlace := s.queue != nil && addsJob(d.Policy)
	var req quota.Request
	var result quota.Result
	if s.cfg.LimitEnabled {
		s.callers.identifyUser(&caller, r, d.Policy)
		req = quota.Request{Buckets: s.buckets(d.Policy, caller), Recorded: limitShadow}
		if wantsPlace {
			req.Place = s.place(backpressure.Asker{Address: caller.IP, Sharer: caller.IP}, queueShadow)
		}
		var limited finding
		result, limited = s.take(ctx, req, caller, d)
		if limited.fails && !limitShadow && provisional && !queueShadow {
			// The queue comes first: a client that both refuse is told of the queue alone.
			limited, d.Bucket = queued, nil
		}
		if d.apply(limited, limitShadow) {
			return
		}
	}
	if wantsPlace {
		v := s.admit(ctx, caller, result)
		if d.apply(queueFinding(v, s.cfg.QueueFailureMode), queueShadow) {
			s.refund(ctx, result, req.Buckets)
			if d.Bucket != nil && !d.Bucket.Empty() {
				d.Bucket = nil // after a refund its state is not known
			}
		}
	}
}

// place is the place in the queue that a request asks the limiter for, with its tokens.
func (s *Server) place(a backpressure.Asker, shadow bool) quota.Place {
	p := s.queue.Place(a)
	if p.Limit == 0 || s.places == nil {
		return quota.Place{}
	}
	return quota.Place{Mode: placeMode(shadow, s.cfg.QueueFailureMode), Queue: s.places, Limit: p.Limit, Share: p.Share, Caller: p.Caller}
}

// placeMode is how a request asks for its tokens and a place in the queue together.
func placeMode(shadow bool, mode FailureMode) quota.PlaceMode {
	switch {
	case shadow:
		return quota.PlaceRecorded
	case mode == FailAllow:
		return quota.PlaceIfKnown
	default:
		return quota.PlaceRequired
	}
}

// take asks the limiter for the caller's tokens, and for a place in the queue if req says
// so. It returns what the limiter said, and the finding of the buckets.
func (s *Server) take(ctx context.Context, req quota.Request, caller Caller, d *Decision) (quota.Result, finding) {
	s.metrics.callers.WithLabelValues(string(caller.IPFrom), string(caller.UserFrom)).Inc()
	if caller.IP == unknownIP {
		s.metrics.unknownIP.Inc()
	}
	if caller.UserFrom == UserAmbiguous {
		s.metrics.ambiguous.Inc()
	}
	d.Charged = caller
	result, err := s.limiter.Take(ctx, req)
	if err == nil {
		d.Bucket = &result
	}
	return result, limitFinding(result, err, s.cfg.LimitFailureMode, failureRetry)
}

// admit is the final check before a request may add a job. The limiter may have asked the
// queue already, together with the buckets.
func (s *Server) admit(ctx context.Context, caller Caller, r quota.Result) backpressure.Verdict {
	switch r.Place {
	case quota.PlaceNotAsked:
		return s.queue.Admit(ctx, backpressure.Asker{Address: caller.IP, Sharer: caller.IP})
	case quota.PlaceUnknown:
		return s.queue.Admitted(backpressure.Asker{Address: caller.IP, Sharer: caller.IP}, backpressure.Admission{}, true)
	default:
		return s.queue.Admitted(backpressure.Asker{Address: caller.IP, Sharer: caller.IP}, backpressure.Admission{Admitted: r.Place == quota.PlaceGiven, Pending: r.Pending}, false)
	}
}

// buckets returns the buckets of a caller: that of the address and, if there is a user,
// that of the user.
func (s *Server) buckets(p Policy, caller Caller) []quota.Bucket {
	tiers := s.limits.Run
	if p == PolicyAssistant {
		tiers = s.limits.Assistant
	}
	limit := tiers.Plain
	if caller.Tier == TierPremium {
		limit = tiers.Premium
	}
	buckets := append(make([]quota.Bucket, 0, 2), quota.Bucket{Key: caller.ipKey, Limit: limit, MaxDebt: tiers.MaxDebt()})
	if caller.userKey != "" {
		buckets = append(buckets, quota.Bucket{Key: caller.userKey, Limit: limit, MaxDebt: tiers.MaxDebt()})
	}
	return buckets
}

// refund puts back the tokens of a request that was admitted by the buckets and then not
// by the queue. If that fails, the caller has paid for nothing: that is the safe side.
func (s *Server) refund(ctx context.Context, r quota.Result, buckets []quota.Bucket) {
	if !r.Taken {
		return
	}
	if err := s.limiter.Refund(ctx, r, buckets); err != nil {
		s.log.DebugContext(ctx, "tokens not refunded", "error", err)
	}
}

// addsJob says whether each request of a policy becomes a job. Some requests to the
// assistant do, and the gate can't tell which.
func addsJob(p Policy) bool { return p == PolicyRun }

// isPreflight says whether a request is a CORS preflight (fetch.spec.whatwg.org): the
// browser asks which requests it may send.
func isPreflight(r envoy.Request) bool {
	if r.Method != "OPTIONS" {
		return false
	}
	_, origin := r.Header("origin")
	_, method := r.Header("access-control-request-method")
	return origin > 0 && method > 0
}
