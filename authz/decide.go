package authz

import (
	"context"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// decide makes the checks in a fixed order. Checks that cost nothing come first, and
// the queue before the buckets: a request that the queue refuses costs no token.
func (s *Server) decide(ctx context.Context, rules *rules, r envoy.Request, d *Decision, overloaded bool) {
	g, known := rules.classify(r)
	switch {
	case !known:
		d.Policy = policyUnknown
		s.complain(ctx, ReasonUnknownPolicy, "the policy named by Envoy's route is unknown; all its requests are denied", "policy", r.Policy)
		d.apply(finding{reason: ReasonUnknownPolicy, wait: after(failureRetry), fails: true}, false)
		return
	case g == nil:
		d.Policy, d.Reason = policyNone, ReasonNotGuarded
		return
	}
	d.Policy = g.name
	if isPreflight(r) {
		d.Reason = ReasonPreflight
		return
	}
	caller := s.callers.identify(r, rules, g)
	exception := s.callers.except(&caller, r, rules)
	switch {
	case exception.Deny:
		d.Caller = caller
		d.apply(finding{reason: ReasonForbidden, wait: after(0), fails: true}, false)
		return
	case overloaded:
		s.complain(ctx, ReasonOverloaded, "more Checks at once than MAX_CONCURRENT_CHECKS; the failure modes decide those above it")
		d.apply(finding{reason: ReasonOverloaded, wait: after(failureRetry), fails: s.failsClosed()}, g.queueShadow && g.limitShadow)
		return
	}
	d.Caller = caller

	var asker backpressure.Asker
	var queued finding
	provisional := false
	if g.queue != nil {
		asker = s.asker(caller, r, g)
		v := g.queue.Shed(asker, g.becomesJob)
		queued, provisional = queueFinding(v, s.cfg.QueueFailureMode), v.Provisional
	}
	if !provisional && d.apply(queued, g.queueShadow) {
		return
	}

	var req quota.Request
	var result quota.Result
	if s.cfg.LimitEnabled && !exception.Exempt {
		s.callers.identifyUser(&caller, r, g)
		req = quota.Request{Buckets: g.bucketsOf(caller, d), Recorded: g.limitShadow}
	}
	if len(req.Buckets) > 0 {
		if g.becomesJob {
			req.Place = s.place(g, asker)
		}
		var limited finding
		result, limited = s.take(ctx, req, caller, d)
		if limited.fails && !g.limitShadow && provisional && !g.queueShadow {
			// The queue comes first: a client that both refuse is told of the queue alone.
			limited, d.Bucket = queued, nil
		}
		if d.apply(limited, g.limitShadow) {
			return
		}
	}
	if g.becomesJob {
		v := admit(ctx, g.queue, asker, result)
		if d.apply(queueFinding(v, s.cfg.QueueFailureMode), g.queueShadow) {
			s.refund(ctx, result, req.Buckets)
			if d.Bucket != nil && !d.Bucket.Empty() {
				d.Bucket = nil // after a refund its state is not known
			}
		}
	}
	if exception.Exempt && d.Reason == ReasonOK {
		d.Reason = ReasonExempt
	}
}

// asker is what the queue needs to know of a caller.
func (s *Server) asker(c Caller, r envoy.Request, g *guarded) backpressure.Asker {
	a := backpressure.Asker{Address: c.IP, Sharer: c.IP, Reserved: g.reserved[c.tier]}
	if g.shares {
		// A user that the client only claims has no share: the client could claim many.
		if id := s.callers.verified(r); id != "" {
			a.Sharer = string(appendUserSubject(nil, verifiedUserKind, id))
		}
	}
	return a
}

// place is the place in the queue that a request asks the limiter for, with its tokens.
func (s *Server) place(g *guarded, a backpressure.Asker) quota.Place {
	if g.queue.Places == nil {
		return quota.Place{}
	}
	p := g.queue.Place(a)
	if p.Limit == 0 {
		return quota.Place{}
	}
	return quota.Place{Mode: placeMode(g.queueShadow, s.cfg.QueueFailureMode), Queue: g.queue.Places, Limit: p.Limit, Share: p.Share, Caller: p.Caller}
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
func admit(ctx context.Context, q Queue, a backpressure.Asker, r quota.Result) backpressure.Verdict {
	switch r.Place {
	case quota.PlaceNotAsked:
		return q.Admit(ctx, a)
	case quota.PlaceUnknown:
		return q.Admitted(a, backpressure.Admission{}, true)
	default:
		return q.Admitted(a, backpressure.Admission{
			Admitted: r.Place == quota.PlaceGiven, OverShare: r.Place == quota.PlaceShare, Pending: r.Pending,
		}, false)
	}
}

// bucketsOf returns the buckets of a caller, and notes in the decision which they are.
// Buckets of users are there only if there is a user.
func (g *guarded) bucketsOf(c Caller, d *Decision) []quota.Bucket {
	d.Buckets, d.Told = g.buckets, g.told[1][c.tier]
	if c.User == "" {
		d.Buckets, d.Told = g.anonymous, g.told[0][c.tier]
	}
	buckets := make([]quota.Bucket, len(d.Buckets))
	for i, b := range d.Buckets {
		buckets[i] = quota.Bucket{Key: b.key(c, g), Limit: b.limits[c.tier], MaxDebt: b.maxDebt}
	}
	return buckets
}

// key is the key of the bucket of a caller.
func (b *bucket) key(c Caller, g *guarded) string {
	switch {
	case b.per == policy.PerAll:
		return b.prefix // it ends in the subject
	case b.per == policy.PerUser && b.prefix == g.userPrefix:
		return c.userKey
	case b.per == policy.PerUser:
		return b.prefix + c.User
	case b.prefix == g.ipPrefix:
		return c.ipKey
	default:
		return b.prefix + c.IP
	}
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
