package authz

import (
	"strconv"
	"sync"
	"time"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
)

// details are the texts of the denials. Clients of the API know the one for rate_limited
// already.
var details = map[Reason]string{
	ReasonForbidden:          "Forbidden",
	ReasonRateLimited:        "Too Many Requests",
	ReasonQueueShare:         "Too many of your jobs wait in the queue. Please retry later.",
	ReasonQueueFull:          "The job queue is full. Please retry later.",
	ReasonQueueSlow:          "The job queue is slow: jobs wait too long. Please retry later.",
	ReasonQueueUnknown:       "The state of the job queue is unknown. Please retry later.",
	ReasonLimiterUnavailable: "The rate limiter is unavailable. Please retry later.",
	ReasonUnknownPolicy:      "The gateway is misconfigured.",
	ReasonOverloaded:         "The gateway is overloaded. Please retry later.",
	ReasonInternal:           "The gateway failed. Please retry later.",
}

// draft is what an answer to Envoy is made of. A draft is used again for another answer.
type draft struct {
	record gatev1.Decision
	reply  envoy.Reply
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// write fills the draft with a decision whose kind has the template t.
func (a *draft) write(d *Decision, t *template, form HeaderForm) {
	record(&a.record, d)
	a.reply.Reset(t.reply)
	if d.Denied && d.Reason != ReasonForbidden {
		var scratch [32]byte
		a.reply.AddHeader("retry-after", appendSeconds(scratch[:0], max(d.Wait, time.Second)))
	}
	if d.Bucket != nil {
		addBucket(&a.reply, d, form)
	}
	addMetadata(&a.reply, &a.record, variables)
}

// addBucket tells the client the state of its emptiest bucket, and the limits of all of
// them. The form is that of draft-ietf-httpapi-ratelimit-headers. The older one tells of
// the emptiest bucket only; its reset is the time until that bucket is full.
func addBucket(reply *envoy.Reply, d *Decision, form HeaderForm) {
	r := d.Bucket
	var scratch [128]byte
	value := scratch[:0]
	switch form {
	case HeadersDraft:
		name := d.Buckets[r.Bucket].name
		if r.Fallback && r.Limit != d.Buckets[r.Bucket].limits[d.Charged.tier] {
			// The limits of this process are others, and the store tells this one.
			value = appendQuotaPolicy(value, name, r.Limit)
		} else {
			value = append(value, d.Told...)
		}
		reply.AddHeader("ratelimit-policy", value)
		value = append(strconv.AppendQuote(scratch[:0], name), ";r="...)
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
