package authz

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
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

// bodies are the bodies of the denials.
var bodies = func() map[Reason]string {
	bodies := make(map[Reason]string, len(details))
	for reason, detail := range details {
		bodies[reason] = fmt.Sprintf(`{"detail":%q}`, detail)
	}
	return bodies
}()

// draft is what an answer to Envoy is made of. A draft is used again for another answer.
type draft struct {
	record gatev1.Decision
	reply  envoy.Reply
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// write fills the draft with a decision.
func (a *draft) write(d *Decision, form HeaderForm) {
	record(&a.record, d)
	a.reply.Reset()
	answer(&a.reply, d, form)
	addMetadata(&a.reply, &a.record)
}

// answer fills the reply to Envoy, but for the metadata.
func answer(reply *envoy.Reply, d *Decision, form HeaderForm) {
	var scratch [128]byte
	value := scratch[:0]
	if d.Denied {
		reply.Status = http.StatusServiceUnavailable
		if d.Reason == ReasonRateLimited {
			reply.Status = http.StatusTooManyRequests
		}
		reply.Body = bodies[d.Reason]
		reply.AddHeader("content-type", append(value, "application/json"...))
		reply.AddHeader("retry-after", appendSeconds(value, max(d.Wait, time.Second)))
		// An Envoy on the client's side does not retry then (envoyproxy/envoy#4972).
		reply.AddHeader("x-envoy-ratelimited", append(value, "true"...))
	}
	if d.Bucket != nil {
		addBucket(reply, d.Policy, d.Bucket, form)
	}
}

// addBucket tells the client the state of its emptiest bucket. The form is that of
// draft-ietf-httpapi-ratelimit-headers, or the older one, whose reset is the time until
// the bucket is full.
func addBucket(reply *envoy.Reply, p Policy, r *quota.Result, form HeaderForm) {
	var scratch [128]byte
	value := scratch[:0]
	switch form {
	case HeadersDraft:
		value = append(strconv.AppendQuote(value, string(p)), ";q="...)
		value = append(strconv.AppendInt(value, r.Limit.Capacity, 10), ";w="...)
		reply.AddHeader("ratelimit-policy", appendSeconds(value, r.Limit.Span()))
		value = append(strconv.AppendQuote(scratch[:0], string(p)), ";r="...)
		value = append(strconv.AppendInt(value, r.Remaining(), 10), ";t="...)
		reply.AddHeader("ratelimit", appendSeconds(value, r.NextToken()))
	case HeadersLegacy:
		reply.AddHeader("x-ratelimit-limit", strconv.AppendInt(value, r.Limit.Capacity, 10))
		reply.AddHeader("x-ratelimit-remaining", strconv.AppendInt(value, r.Remaining(), 10))
		reply.AddHeader("x-ratelimit-reset", appendSeconds(value, r.Debt))
	}
}

// appendSeconds rounds up: a client that comes back too early is denied again.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendInt(b, int64((d+time.Second-1)/time.Second), 10)
}
