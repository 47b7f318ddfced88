package authz

import (
	"errors"
	"time"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Reason is the reason for a decision; it is a label of the metrics.
type Reason string

// The reasons. With the verdict allow, the reasons from rate_limited on say that a shadow
// mode or a failure mode let the request pass.
const (
	ReasonOK                 Reason = "ok"
	ReasonNotGuarded         Reason = "not_guarded"
	ReasonPreflight          Reason = "preflight"
	ReasonExempt             Reason = "exempt"
	ReasonForbidden          Reason = "forbidden"
	ReasonRateLimited        Reason = "rate_limited"
	ReasonQueueFull          Reason = "queue_full"
	ReasonQueueSlow          Reason = "queue_slow"
	ReasonQueueShare         Reason = "queue_share"
	ReasonQueueUnknown       Reason = "queue_unknown"
	ReasonLimiterUnavailable Reason = "limiter_unavailable"
	ReasonUnknownPolicy      Reason = "unknown_policy"
	ReasonOverloaded         Reason = "overloaded"
	ReasonInternal           Reason = "internal"
)

// Decision is the decision about one request.
type Decision struct {
	// Policy is the name of the policy that the request falls under: a label of the metrics.
	Policy string
	// Reason says why the request was allowed or denied.
	Reason Reason
	// Denied says that the request does not pass.
	Denied bool
	// Shadow says that a check in shadow mode would have denied the request.
	Shadow bool
	// Wait is the Retry-After of a denial; 0 if the request may pass.
	Wait time.Duration
	// Caller is who sent a guarded request, without the user; the zero Caller if nobody had to
	// be found out.
	Caller Caller
	// Charged is the caller whose buckets were asked; the zero Caller if none were.
	Charged Caller
	// Buckets are the buckets that were asked, and Told the list of their limits for the
	// client.
	Buckets []bucket
	Told    string
	// Bucket is the state of the emptiest of them; nil if it is not known.
	Bucket *quota.Result
}

// finding is what one check found against a request. The zero value says that it found
// nothing.
type finding struct {
	reason Reason
	// wait returns the Retry-After. It is called only if the client is told.
	wait func() time.Duration
	// fails says that the request fails the check. If it is false, the check could not
	// be made, and its failure mode lets the request pass.
	fails bool
}

// after returns a wait that is known already.
func after(wait time.Duration) func() time.Duration {
	return func() time.Duration { return wait }
}

// apply enters the finding of a check into the decision and says whether the request is
// denied. The reason is that of the denial or, if nothing denies, of the first finding.
func (d *Decision) apply(f finding, shadow bool) (denied bool) {
	if f.reason == "" {
		return false
	}
	d.Denied = f.fails && !shadow
	d.Shadow = d.Shadow || f.fails && shadow
	if d.Denied {
		d.Wait = f.wait()
	}
	if d.Denied || d.Reason == ReasonOK {
		d.Reason = f.reason
	}
	return d.Denied
}

// queueFinding is what the verdict of the queue says against a request.
func queueFinding(v backpressure.Verdict, mode FailureMode) finding {
	switch v.State {
	case backpressure.StateOK:
		return finding{}
	case backpressure.StateFull:
		return finding{reason: ReasonQueueFull, wait: v.RetryAfter, fails: true}
	case backpressure.StateShare:
		return finding{reason: ReasonQueueShare, wait: v.RetryAfter, fails: true}
	case backpressure.StateSlow:
		return finding{reason: ReasonQueueSlow, wait: v.RetryAfter, fails: true}
	default:
		return finding{reason: ReasonQueueUnknown, wait: v.RetryAfter, fails: mode != FailAllow}
	}
}

// limitFinding is what the answer of the limiter says against a request. With the mode
// local, the limiter asks the buckets of this process and does not return ErrUnavailable.
func limitFinding(r quota.Result, err error, mode FailureMode, retry time.Duration) finding {
	switch {
	case errors.Is(err, quota.ErrUnavailable):
		return finding{reason: ReasonLimiterUnavailable, wait: after(retry), fails: mode != FailAllow}
	case err != nil:
		return finding{reason: ReasonInternal, wait: after(retry), fails: mode != FailAllow}
	case r.Empty():
		return finding{reason: ReasonRateLimited, wait: r.NextToken, fails: true}
	default:
		return finding{}
	}
}
