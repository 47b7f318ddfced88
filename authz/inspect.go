package authz

import (
	"fmt"
	"net/netip"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Subject is a caller whose buckets an operator asks about. The zero value is nobody.
type Subject struct {
	// IP is the address of the client; the zero Addr if no address is asked about.
	IP netip.Addr
	// User is the id of the user, as the request names it; empty if no user is asked about.
	// Verified says that Envoy has verified it (USER_ID_SOURCES=jwt): such a user has other
	// buckets than one whom a client only claims.
	User     string
	Verified bool
	// Tier is the name of the caller's tier, by which its limits are; empty for the plain one.
	Tier string
}

// CallerBucket is a bucket that requests of a caller are charged to.
type CallerBucket struct {
	quota.Bucket

	Policy string
	Name   string // as clients are told it
	Per    policy.Per
}

// BucketsOf returns the buckets of a caller under all policies, in the order of the file,
// with those that all callers share. It fails if there is no such tier.
func BucketsOf(set *policy.Set, s Subject) ([]CallerBucket, error) {
	tier, ok := 0, true
	if s.Tier != "" {
		tier, ok = set.Tier(s.Tier)
	}
	if !ok {
		return nil, fmt.Errorf("the policies have no tier %q", s.Tier)
	}
	factors := []float64{1}
	for _, t := range set.File().Tiers {
		factors = append(factors, t.Factor)
	}
	kind := claimedUserKind
	if s.Verified {
		kind = verifiedUserKind
	}
	var all []CallerBucket
	for _, p := range set.Policies() {
		g := newGuarded(p, factors)
		for _, b := range g.buckets {
			key := b.prefix // with its subject, if all share the bucket
			switch {
			case b.per == policy.PerIP && s.IP.IsValid():
				key += string(appendIPSubject(nil, s.IP))
			case b.per == policy.PerUser && s.User != "":
				key += string(appendUserSubject(nil, kind, s.User))
			case b.per != policy.PerAll:
				continue
			}
			all = append(all, CallerBucket{
				Bucket: quota.Bucket{Key: key, Limit: b.limits[tier], MaxDebt: b.maxDebt}, Policy: p.Name, Name: b.name, Per: b.per,
			})
		}
	}
	return all, nil
}

// Charged returns the buckets that a request is charged to: none if it is not guarded, or
// if its caller is exempt or forbidden.
func (s *Server) Charged(req *authv3.CheckRequest) []CallerBucket {
	r, rules := envoy.Parse(req), s.rules.Load()
	g, _ := rules.classify(r)
	if g == nil || isPreflight(r) || !s.cfg.LimitEnabled {
		return nil
	}
	caller := s.callers.identify(r, rules, g)
	if e := s.callers.except(&caller, r, rules); e.Exempt || e.Deny {
		return nil
	}
	s.callers.identifyUser(&caller, r, g)
	var all []CallerBucket
	var d Decision
	charged := g.bucketsOf(caller, &d)
	for i, b := range d.Buckets {
		all = append(all, CallerBucket{Bucket: charged[i], Policy: g.name, Name: b.name, Per: b.per})
	}
	return all
}
