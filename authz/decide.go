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
		v := s.queue.Shed(caller.IP, addsJob(d.Policy))
		queued, provisional = queueFinding(v, s.cfg.QueueFailureMode), v.Provisional
	}
	if !provisional && d.apply(queued, queueShadow) {
		return
	}

	wantsPlace := s.queue != nil && addsJob(d.Policy)
	var bill bill
	if s.cfg.LimitEnabled {
		req := quota.Request{Recorded: limitShadow}
		if wantsPlace {
			req.Place = placeMode(queueShadow, s.cfg.QueueFailureMode)
		}
		var limited finding
		s.callers.identifyUser(&caller, r, d.Policy)
		limited, bill = s.take(ctx, req, caller, d)
		if limited.fails && !limitShadow && provisional && !queueShadow {
			// The queue comes first: a client that both refuse is told of the queue alone.
			limited, d.Bucket = queued, nil
		}
		if d.apply(limited, limitShadow) {
			return
		}
	}
	if wantsPlace {
		v := s.admit(ctx, caller, bill.result)
		if d.apply(queueFinding(v, s.cfg.QueueFailureMode), queueShadow) {
			s.refund(ctx, bill)
			if d.Bucket != nil && !d.Bucket.Empty() {
				d.Bucket = nil // after a refund its state is not known
			}
		}
	}
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

// bill is what a request asked of the limiter, and what it got.
type bill struct {
	buckets []quota.Bucket
	result  quota.Result
}

// take asks the limiter for the caller's tokens, and for a place in the queue if req says
// so. It returns the finding of the buckets.
func (s *Server) take(ctx context.Context, req quota.Request, caller Caller, d *Decision) (finding, bill) {
	s.metrics.callers.WithLabelValues(string(caller.IPFrom), string(caller.UserFrom)).Inc()
	if caller.IP == unknownIP {
		s.metrics.unknownIP.Inc()
	}
	if caller.UserFrom == UserAmbiguous {
		s.metrics.ambiguous.Inc()
	}
	d.Charged = caller
	bucket := s.bucket(d.Policy, caller.Tier)
	req.Buckets = make([]quota.Bucket, 0, 2)
	for _, key := range []string{caller.ipKey, caller.userKey} {
		if key != "" {
			bucket.Key = key
			req.Buckets = append(req.Buckets, bucket)
		}
	}
	result, err := s.limiter.Take(ctx, req)
	if err == nil {
		d.Bucket = &result
	}
	return limitFinding(result, err, s.cfg.LimitFailureMode, failureRetry), bill{req.Buckets, result}
}

// admit is the final check before a request may add a job. The limiter may have asked the
// queue already, together with the buckets.
func (s *Server) admit(ctx context.Context, caller Caller, r quota.Result) backpressure.Verdict {
	switch r.Place {
	case quota.PlaceNotAsked:
		return s.queue.Admit(ctx, caller.IP)
	case quota.PlaceUnknown:
		return s.queue.Admitted(caller.IP, backpressure.Admission{}, true)
	default:
		return s.queue.Admitted(caller.IP, backpressure.Admission{Admitted: r.Place == quota.PlaceGiven, Pending: r.Pending}, false)
	}
}

// bucket returns a bucket without a key.
func (s *Server) bucket(p Policy, t Tier) quota.Bucket {
	tiers := s.limits.Run
	if p == PolicyAssistant {
		tiers = s.limits.Assistant
	}
	if t == TierPremium {
		return quota.Bucket{Limit: tiers.Premium, MaxDebt: tiers.MaxDebt()}
	}
	return quota.Bucket{Limit: tiers.Plain, MaxDebt: tiers.MaxDebt()}
}

// refund puts back the tokens of a request that was admitted by the buckets and then not
// by the queue. If that fails, the caller has paid for nothing: that is the safe side.
func (s *Server) refund(ctx context.Context, b bill) {
	if !b.result.Taken {
		return
	}
	if err := s.limiter.Refund(ctx, b.result, b.buckets); err != nil {
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
