package authz

import (
	"strconv"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Rules is what a [Server] decides by.
type Rules struct {
	// Policies has at least one policy.
	Policies *policy.Set
	// Queues has the queues that the policies name. Without one, its checks are not made.
	Queues map[string]WatchedQueue
}

// WatchedQueue is a queue, and how the limiter asks it for places.
type WatchedQueue struct {
	Queue

	// Places is nil if the limiter can't give places in this queue.
	Places *quota.Queue
}

// rules are the Rules, prepared for requests. They never change. A request uses the same
// rules from its beginning to its end.
type rules struct {
	set       *policy.Set
	guarded   map[*policy.Policy]*guarded
	first     *guarded // the first policy of the file; a request counts as its own until its policy is known
	tiers     []string // their names
	templates *memo[kind, *template]
	failures  map[string]*failure // by policy; see newFailures
}

// The labels of requests that no policy is for. No policy has such a name.
const (
	// policyUnknown stands for a policy that Envoy's route names and that does not exist:
	// a mistake in Envoy's configuration.
	policyUnknown = "unknown"
	// policyNone stands for a request that is not guarded.
	policyNone = "none"
)

// guarded is a policy, prepared for requests.
type guarded struct {
	name                     string
	queue                    *WatchedQueue // nil: none is checked
	becomesJob               bool
	shares                   bool   // requests need a share of the queue
	reserved                 []bool // by tier: it may have the reserved places
	limitShadow, queueShadow bool
	buckets                  []bucket // those of a caller with a user
	anonymous                []bucket // those of a caller without one
	ipPrefix, userPrefix     string   // of the keys of the first bucket for an address and for a user; may be empty
	told                     [2]told  // what callers are told of their buckets: of anonymous, and of buckets
}

// bucket is one bucket of a policy.
type bucket struct {
	per    policy.Per
	name   string        // for clients
	prefix string        // of the key, before the subject; the whole key if all share the bucket
	limits []quota.Limit // by tier
	// maxDebt is the most that the bucket can owe, whatever the tier.
	maxDebt time.Duration
}

// told is the value of RateLimit-Policy, by tier.
type told []string

// newRules prepares rules.
func (s *Server) newRules(from Rules) *rules {
	file := from.Policies.File()
	r := &rules{set: from.Policies, guarded: make(map[*policy.Policy]*guarded), tiers: []string{policy.Plain}}
	for _, t := range file.Tiers {
		r.tiers = append(r.tiers, t.Name)
	}
	factors := factorsOf(from.Policies)
	queues := make(map[string]policy.Queue)
	for _, q := range file.Queues {
		queues[q.Name] = q
	}
	for _, p := range from.Policies.Policies() {
		g := newGuarded(p, factors)
		if watched, ok := from.Queues[p.Queue]; ok {
			q := queues[p.Queue]
			g.queue, g.becomesJob = &watched, p.BecomesJob
			g.shares = p.BecomesJob && q.FairShare > 0
			g.queueShadow = g.queueShadow || q.Shadow
			g.reserved = reservedPlaces(from.Policies, q)
		}
		r.guarded[p] = g
		if r.first == nil {
			r.first = g
		}
	}
	r.templates = newMemo(func(k kind) *template { return newTemplate(k, s.metrics.decisions) })
	r.failures = s.newFailures(r)
	return r
}

// factorsOf returns the factors of the tiers, in their order: that of the plain one first.
func factorsOf(set *policy.Set) []float64 {
	factors := []float64{1}
	for _, t := range set.File().Tiers {
		factors = append(factors, t.Factor)
	}
	return factors
}

// reservedPlaces says which tiers may have the reserved places of a queue.
func reservedPlaces(set *policy.Set, q policy.Queue) []bool {
	reserved := make([]bool, 1+len(set.File().Tiers))
	for _, name := range q.Reserve.Tiers {
		i, _ := set.Tier(name)
		reserved[i] = true
	}
	return reserved
}

func newGuarded(p *policy.Policy, factors []float64) *guarded {
	g := &guarded{name: p.Name, limitShadow: p.Shadow.Limits, queueShadow: p.Shadow.Queue}
	for _, b := range p.Buckets {
		key, name := p.Name, p.Name
		if b.Name != "" {
			key, name = p.Name+"/"+b.Name, b.Name
		}
		scaled := factors
		if !b.Tiered {
			scaled = make([]float64, len(factors)) // a factor under 1 counts as 1
		}
		made := bucket{per: b.Per, name: name, prefix: quota.Key(key, ""), limits: quota.Limits(b.Burst, b.Rate.Count, b.Rate.Unit, scaled...)}
		made.maxDebt = quota.MaxDebt(made.limits)
		if b.Per == policy.PerAll {
			made.prefix += string(policy.PerAll)
		}
		g.buckets = append(g.buckets, made)
		if b.Per != policy.PerUser {
			g.anonymous = append(g.anonymous, made)
		}
		switch {
		case b.Per == policy.PerIP && g.ipPrefix == "":
			g.ipPrefix = made.prefix
		case b.Per == policy.PerUser && g.userPrefix == "":
			g.userPrefix = made.prefix
		}
	}
	g.told = [2]told{newTold(g.anonymous, len(factors)), newTold(g.buckets, len(factors))}
	return g
}

// newTold lists the buckets, each name once: buckets with the same name have the same
// limits.
func newTold(buckets []bucket, tiers int) told {
	t := make(told, tiers)
	for tier := range t {
		var items []string
		listed := make(map[string]bool)
		for _, b := range buckets {
			if !listed[b.name] {
				listed[b.name] = true
				items = append(items, string(appendQuotaPolicy(nil, b.name, b.limits[tier])))
			}
		}
		t[tier] = strings.Join(items, ", ")
	}
	return t
}

// appendQuotaPolicy appends one item of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers).
func appendQuotaPolicy(b []byte, name string, l quota.Limit) []byte {
	b = append(strconv.AppendQuote(b, name), ";q="...)
	b = append(strconv.AppendInt(b, l.Capacity, 10), ";w="...)
	return appendSeconds(b, l.Span())
}

// names are the names of the policies.
func (r *rules) names() []string {
	var names []string
	for _, p := range r.set.Policies() {
		names = append(names, p.Name)
	}
	return names
}

// classify returns the policy that Envoy's route names or, if the route names none, the
// policy of the path; nil for a request that is not guarded. known is false if the route
// names a policy that does not exist.
func (r *rules) classify(req envoy.Request) (g *guarded, known bool) {
	if req.Policy != "" {
		p := r.set.Named(req.Policy)
		return r.guarded[p], p != nil
	}
	return r.guarded[r.set.Match(req.Method, req.Path)], true
}
