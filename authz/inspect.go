package authz

import (
	"fmt"
	"net/netip"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Subject is a caller whose buckets and jobs an operator asks about. The zero value is nobody.
type Subject struct {
	// IP is the address of the client; the zero Addr if no address is asked about.
	IP netip.Addr
	// User is the id of the user, as the request names it; empty if no user is asked about.
	// Verified says that Envoy has verified it (USER_ID_SOURCES=jwt): such a user has other
	// buckets than one whom a client only claims.
	User     string
	Verified bool
	// Tier is the name of the tier that the request names; empty for the plain one. It does not
	// count for a caller to whom the policies give a tier.
	Tier string
}

// Exception returns what the policies have for this caller alone, as a gate finds it.
func (s Subject) Exception(set *policy.Set) policy.Exception {
	user := ""
	if s.Verified {
		user = s.User
	}
	return exceptionFor(set, user, s.IP)
}

// CallerBucket is a bucket that requests of a caller are charged to.
type CallerBucket struct {
	quota.Bucket

	Policy string
	Name   string // as clients are told it
	Per    policy.Per
	Shadow bool // the policy's limits refuse nothing
}

// tier is the number of the caller's tier.
func (s Subject) tier(set *policy.Set) (int, error) {
	tier := 0
	if s.Tier != "" {
		var ok bool
		if tier, ok = set.Tier(s.Tier); !ok {
			return 0, fmt.Errorf("the policies have no tier %q", s.Tier)
		}
	}
	if e := s.Exception(set); e.Tier >= 0 {
		tier = e.Tier
	}
	return tier, nil
}

// BucketsOf returns the buckets of a caller under all policies, in the order of the file,
// with those that all callers share. It fails if there is no such tier.
func BucketsOf(set *policy.Set, s Subject) ([]CallerBucket, error) {
	tier, err := s.tier(set)
	if err != nil {
		return nil, err
	}
	factors := factorsOf(set)
	ip, user := s.subjects()
	var all []CallerBucket
	for _, p := range set.Policies() {
		all = append(all, newGuarded(p, factors).bucketsFor(ip, user, tier)...)
	}
	return all, nil
}

// bucketsFor returns the buckets of subjects. One that is empty has no bucket.
func (g *guarded) bucketsFor(ip, user string, tier int) []CallerBucket {
	all := make([]CallerBucket, 0, len(g.buckets))
	for _, b := range g.buckets {
		key := b.prefix // with its subject, if all share the bucket
		switch {
		case b.per == policy.PerIP && ip != "":
			key += ip
		case b.per == policy.PerUser && user != "":
			key += user
		case b.per != policy.PerAll:
			continue
		}
		all = append(all, CallerBucket{
			Bucket: quota.Bucket{Key: key, Limit: b.limits[tier], MaxDebt: b.maxDebt}, Policy: g.name, Name: b.name, Per: b.per, Shadow: g.limitShadow,
		})
	}
	return all
}

// Recorded returns the subject as the record of a decision has it: the fields ip and user
// of decision.proto. What the subject does not have is empty.
func (s Subject) Recorded() (ip, user string) {
	ip, user = s.subjects()
	if ip != "" {
		ip = hashIP(ip)
	}
	return ip, user
}

// subjects returns the subjects of the buckets; empty without an address or a user.
func (s Subject) subjects() (ip, user string) {
	if s.IP.IsValid() {
		ip = string(appendIPSubject(nil, s.IP))
	}
	kind := claimedUserKind
	if s.Verified {
		kind = verifiedUserKind
	}
	if s.User != "" {
		user = string(appendUserSubject(nil, kind, s.User))
	}
	return ip, user
}

// Charges says to which buckets recorded requests are charged, under other policies.
type Charges struct {
	set     *policy.Set
	guarded map[*policy.Policy]*guarded
}

// NewCharges returns the charges under these policies.
func NewCharges(set *policy.Set) *Charges {
	c := &Charges{set: set, guarded: make(map[*policy.Policy]*guarded)}
	factors := factorsOf(set)
	for _, p := range set.Policies() {
		c.guarded[p] = newGuarded(p, factors)
	}
	return c
}

// Of returns the buckets of a caller under a policy of the set. ip, user and tier are those
// of decision.proto. A tier that the policies do not have counts as the plain one. The keys
// are those of a gate but for the address, which is hashed.
func (c *Charges) Of(p *policy.Policy, ip, user, tier string) []quota.Bucket {
	index, _ := c.set.Tier(tier)
	of := c.guarded[p].bucketsFor(ip, user, index)
	buckets := make([]quota.Bucket, len(of))
	for i, b := range of {
		buckets[i] = b.Bucket
	}
	return buckets
}

// AskerOf is what a queue needs to know of a caller. Sharer is empty if it is not known whose
// jobs the caller's are: without an address, only those of a verified user are somebody's. It
// fails if there is no such tier.
func AskerOf(set *policy.Set, q policy.Queue, s Subject) (backpressure.Asker, error) {
	tier, err := s.tier(set)
	if err != nil {
		return backpressure.Asker{}, err
	}
	a := backpressure.Asker{Reserved: reservedPlaces(set, q)[tier]}
	if s.IP.IsValid() {
		a.Address = string(appendIPSubject(nil, s.IP))
		a.Sharer = a.Address
	}
	if s.Verified {
		a.Sharer = string(appendUserSubject(nil, verifiedUserKind, s.User))
	}
	return a, nil
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
		all = append(all, CallerBucket{Bucket: charged[i], Policy: g.name, Name: b.name, Per: b.per, Shadow: g.limitShadow})
	}
	return all
}
