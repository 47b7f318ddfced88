package authz

import (
	"errors"
	"time"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Reason says why a request was decided as it was; it is a label of the metrics.
type Reason string

// The reasons. With verdict allow, all from rate_limited to limiter_unavailable
// mean that the check's shadow or failure mode let the request through.
const (
	ReasonOK                 Reason = "ok"
	ReasonNotGuarded         Reason = "not_guarded"
	ReasonPreflight          Reason = "preflight"
	ReasonRateLimited        Reason = "rate_limited"
	ReasonQueueFull          Reason = "queue_full"
	ReasonQueueSlow          Reason = "queue_slow"
	ReasonQueueUnknown       Reason = "queue_unknown"
	ReasonLimiterUnavailable Reason = "limiter_unavailable"
	ReasonUnknownPolicy      Reason = "unknown_policy"
	ReasonOverloaded         Reason = "overloaded"
	ReasonInternal           Reason = "internal"
)

// Decision is what becomes of one request.
type Decision struct {
	Policy Policy
	Reason Reason
	Denied bool
	// Shadow says that a check in shadow mode would have denied the request.
	Shadow bool
	// Wait is how long the client is told to wait; 0 if it may pass.
	Wait time.Duration
	// Charged is the caller whose buckets were asked; the zero Caller if none were.
	Charged Caller
	// Bucket is the state of the caller's buckets; nil if it is not known.
	Bucket *quota.Result
}

// finding is what one check says against a request; the zero value is nothing.
type finding struct {
	reason Reason
	// wait is asked only if the client is told.
	wait func() time.Duration
	// fails says that the request fails the check; otherwise the check could not
	// be made and its failure mode lets the request through.
	fails bool
}

// after is a wait that is known beforehand.
func after(wait time.Duration) func() time.Duration {
	return func() time.Duration { return wait }
}

// apply enters a check's finding into the decision and says whether the request
// is denied. The first finding stays the reason, save that a denial overrides
// what was only noted.
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

// queueFinding judges the state of the queue.
func queueFinding(v backpressure.Verdict, mode FailureMode) finding {
	switch v.State {
	case backpressure.StateOK:
		return finding{}
	case backpressure.StateFull:
		return finding{reason: ReasonQueueFull, wait: v.RetryAfter, fails: true}
	case backpressure.StateSlow:
		return finding{reason: ReasonQueueSlow, wait: v.RetryAfter, fails: true}
	default:
		return finding{reason: ReasonQueueUnknown, wait: v.RetryAfter, fails: mode != FailAllow}
	}
}

// limitFinding judges the answer of the limiter. With mode local the limiter
// answers from this process's buckets and does not fail with ErrUnavailable.
func limitFinding(r quota.Result, err error, mode FailureMode, retry time.Duration) finding {
	switch {
	case errors.Is(err, quota.ErrUnavailable):
		return finding{reason: ReasonLimiterUnavailable, wait: after(retry), fails: mode != FailAllow}
	case err != nil:
		return finding{reason: ReasonInternal, wait: after(retry), fails: mode != FailAllow}
	case !r.Taken:
		return finding{reason: ReasonRateLimited, wait: r.NextToken, fails: true}
	default:
		return finding{}
	}
}
