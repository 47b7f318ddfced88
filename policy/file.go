// Package policy says what is guarded and how much of it each caller may use: policies,
// tiers, callers and queues, from the environment or from a file. A [File] is what was
// written. A [Set] is the same, compiled, for requests to look things up in.
package policy

import (
	"math"
	"net/netip"
	"time"
)

// File is what a policy file says. Names are unique, and lists have the order of the file.
// The tags of its fields are for the JSON schema; Parse does not read them.
type File struct {
	// Tiers are classes of callers, by name; the callers without one are plain.
	Tiers []Tier
	// Queues are the job queues, by the name that they have in their library.
	Queues []Queue
	// Policies are sets of limits, by name, with the requests that they are for.
	Policies []Policy `jsonschema:"required"`
	// Callers are exceptions for some callers.
	Callers []Caller
}

// Tier is a class of callers with larger buckets than others.
type Tier struct {
	Name string `json:"-"`
	// Factor multiplies burst and rate of the buckets of such a caller; from 1 to 1,000.
	Factor float64 `jsonschema:"minimum=1,maximum=1000"`
}

// Queue is a job queue that is watched, and when it is full or slow.
type Queue struct {
	// Name is the name that the queue has in its library, such as SAQ.
	Name string `json:"-"`
	// MaxPending is the number of waiting jobs at which the queue is full; 0: never.
	MaxPending int `jsonschema:"minimum=0,maximum=1000000000"`
	// MaxAge is the age of the oldest waiting job at which the queue is slow; 0: never.
	MaxAge time.Duration
	// Reserve keeps the last places for some tiers; the zero value keeps none.
	Reserve Reserve
	// FairShare bounds how many jobs of one caller wait: to so many times the places that
	// are free. 0: there is no such bound.
	FairShare float64 `jsonschema:"minimum=0.01,maximum=100"`
	// Shadow says that what the queue would refuse is only recorded.
	Shadow bool
}

// Unreserved is the number of waiting jobs at which the queue is full for callers whose tier
// may not use the reserve.
func (q Queue) Unreserved() int {
	if q.Reserve.Share == 0 {
		return q.MaxPending
	}
	return min(int(math.Floor((1-q.Reserve.Share)*float64(q.MaxPending)*(1+rounding))), q.MaxPending-1)
}

// rounding is how close to a whole number a number is taken for it. Decimal shares are not
// exact in binary: 10 × 0.9 is 9, not a little more.
const rounding = 1e-12

// Reserve is the part of both thresholds of a queue that only some tiers may use.
type Reserve struct {
	// Tiers are the tiers that may use the part.
	Tiers []string `jsonschema:"required,minItems=1,uniqueItems=true"`
	// Share is the part, above 0 and below 1; 0 in the zero value.
	Share float64 `jsonschema:"required,exclusiveMinimum=0,exclusiveMaximum=1"`
}

// Policy is a set of limits, and the requests that it is for.
type Policy struct {
	// Name is a label of the metrics. In Envoy's route it names the policy.
	Name string `json:"-"`
	// Match has patterns of [net/http.ServeMux], without a host. A request that matches
	// falls under the policy. There may be none: then only Envoy's route names the policy.
	Match []string `jsonschema:"maxItems=100"`
	// Queue is the name of the queue whose state counts; empty: none.
	Queue string
	// BecomesJob says that every admitted request adds one job to the queue.
	BecomesJob bool
	// Buckets are the buckets of a caller. A request needs a token from each.
	Buckets []Bucket `jsonschema:"minItems=1,maxItems=8"`
	// Shadow says which checks only record what they would deny: true (all), limits or queue.
	Shadow Shadow
}

// Shadow says which checks of a policy only record what they would deny.
type Shadow struct{ Limits, Queue bool }

// Per is who shares a bucket.
type Per string

// Who shares a bucket: all requests from one address, all of one user, or all that there are.
const (
	PerIP   Per = "ip"
	PerUser Per = "user"
	PerAll  Per = "all"
)

// Bucket is one bucket of a policy.
type Bucket struct {
	// Per is who shares the bucket: ip, user or all.
	Per Per `jsonschema:"required"`
	// Name tells buckets of a policy apart: clients read it in their headers. Buckets
	// without a name have that of the policy, and all have the same burst and rate.
	Name string `jsonschema:"pattern=^[a-z][a-z0-9_-]*$,maxLength=63"`
	// Burst is how many tokens a full bucket holds.
	Burst int64 `jsonschema:"required,minimum=1,maximum=1000000"`
	// Rate is how fast the bucket gains tokens.
	Rate Rate `jsonschema:"required"`
	// Tiered says that burst and rate are multiplied by the factor of the caller's tier; true
	// if it is left out.
	Tiered bool `jsonschema:"default=true"`
}

// Rate is a number of tokens in a time: 6 in a minute.
type Rate struct {
	Count int64
	// Unit is a second, a minute, an hour or a day.
	Unit time.Duration
}

// Caller is an exception for some callers: those with an address in IP or, if User is not
// empty, that verified user.
type Caller struct {
	// IP is an address or a network; the longest prefix counts.
	IP netip.Prefix
	// User is the id of a verified user; such an entry beats that of an address.
	User string `jsonschema:"minLength=1,maxLength=256"`
	// Then is what is different for the caller: exempt, deny or a tier.
	Then Treatment `jsonschema:"required"`
}

// Treatment is what is different for a caller. The zero value is nothing.
type Treatment struct {
	// Exempt callers need no tokens. The queue still counts.
	Exempt bool
	// Deny refuses all guarded requests.
	Deny bool
	// Tier is the name of the caller's tier; empty: as for everybody.
	Tier string
}
