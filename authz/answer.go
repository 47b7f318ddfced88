package authz

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// details are the texts of the denials. Clients of the API know the one for rate_limited
// already.
var details = map[Reason]string{
	ReasonRateLimited:        "Too Many Requests",
	ReasonQueueFull:          "The job queue is full. Please retry later.",
	ReasonQueueSlow:          "The job queue is slow: jobs wait too long. Please retry later.",
	ReasonQueueUnknown:       "The state of the job queue is unknown. Please retry later.",
	ReasonLimiterUnavailable: "The rate limiter is unavailable. Please retry later.",
	ReasonUnknownPolicy:      "The gateway is misconfigured.",
	ReasonOverloaded:         "The gateway is overloaded. Please retry later.",
	ReasonInternal:           "The gateway failed. Please retry later.",
}

// answer makes the reply to Envoy from a decision and its record.
func answer(d Decision, r *gatev1.Decision, form HeaderForm) envoy.Reply {
	reply := envoy.Reply{Metadata: metadata(r)}
	if d.Denied {
		reply.Status = http.StatusServiceUnavailable
		if d.Reason == ReasonRateLimited {
			reply.Status = http.StatusTooManyRequests
		}
		reply.Body = fmt.Sprintf(`{"detail":%q}`, details[d.Reason])
		reply.Headers = []envoy.Header{
			{Name: "content-type", Value: "application/json"},
			{Name: "retry-after", Value: seconds(max(d.Wait, time.Second))},
			// An Envoy on the client's side does not retry then (envoyproxy/envoy#4972).
			{Name: "x-envoy-ratelimited", Value: "true"},
		}
	}
	if d.Bucket != nil {
		reply.Headers = append(reply.Headers, bucketHeaders(d.Policy, *d.Bucket, form)...)
	}
	return reply
}

// bucketHeaders tell the client the state of its emptiest bucket. The form is that of
// draft-ietf-httpapi-ratelimit-headers, or the older one, whose reset is the time until
// the bucket is full.
func bucketHeaders(p Policy, r quota.Result, form HeaderForm) []envoy.Header {
	switch form {
	case HeadersDraft:
		return []envoy.Header{
			{Name: "ratelimit-policy", Value: fmt.Sprintf("%q;q=%d;w=%s", p, r.Limit.Capacity, seconds(r.Limit.Span()))},
			{Name: "ratelimit", Value: fmt.Sprintf("%q;r=%d;t=%s", p, r.Remaining(), seconds(r.NextToken()))},
		}
	case HeadersLegacy:
		return []envoy.Header{
			{Name: "x-ratelimit-limit", Value: strconv.FormatInt(r.Limit.Capacity, 10)},
			{Name: "x-ratelimit-remaining", Value: strconv.FormatInt(r.Remaining(), 10)},
			{Name: "x-ratelimit-reset", Value: seconds(r.Debt)},
		}
	default:
		return nil
	}
}

// seconds rounds up: a client that comes back too early is denied again.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
