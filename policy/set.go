package policy

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"
)

// Set is a [File] in which requests look up what applies to them. It never changes.
type Set struct {
	file     *File
	policies []*Policy
	named    map[string]*Policy
	// first is the policy of paths that can't be read: the first one that has patterns.
	first *Policy
	mux   *http.ServeMux

	ips   bart.Table[Exception]
	users map[string]Exception
}

// Exception is what is different for a caller.
type Exception struct {
	// Exempt callers need no tokens. The queue still counts.
	Exempt bool
	// Deny refuses all guarded requests.
	Deny bool
	// Tier is the index of the caller's tier, as [Set.Tier] has it; NoTier: as for everybody.
	Tier int
}

// NoTier is the tier of an [Exception] that names none.
const NoTier = -1

// Plain is the name of the tier of callers who have no other. Its factor is 1.
const Plain = "plain"

// Compile prepares a file that is valid: one that [Parse] or [Environment.File] returned.
// The file must not change any more.
func Compile(f *File) *Set {
	s := &Set{
		file:     f,
		policies: make([]*Policy, len(f.Policies)),
		named:    make(map[string]*Policy, len(f.Policies)),
		mux:      http.NewServeMux(),
		users:    make(map[string]Exception),
	}
	for i := range f.Policies {
		p := &f.Policies[i]
		s.policies[i] = p
		s.named[p.Name] = p
		if s.first == nil && len(p.Match) > 0 {
			s.first = p
		}
		for _, pattern := range p.Match {
			s.mux.Handle(pattern, &guard{index: i, policy: p})
		}
	}
	// With a pattern for all other paths, the mux need not find out which methods a path
	// has. A file may have such a pattern itself.
	_ = register(s.mux, "/", unguarded)

	for _, c := range f.Callers {
		e := Exception{Exempt: c.Then.Exempt, Deny: c.Then.Deny, Tier: NoTier}
		if tier, ok := s.Tier(c.Then.Tier); ok {
			e.Tier = tier
		}
		if c.User != "" {
			s.users[c.User] = e
		} else {
			s.ips.Insert(c.IP, e)
		}
	}
	return s
}

// File returns the file that was compiled.
func (s *Set) File() *File { return s.file }

// Policies returns the policies in the order of the file.
func (s *Set) Policies() []*Policy { return s.policies }

// Named returns the policy with this name, or nil if there is none.
func (s *Set) Named(name string) *Policy { return s.named[name] }

// Tier returns the index of a tier: 0 is plain, 1 the first tier of the file. Case and
// spaces around the name do not count.
func (s *Set) Tier(name string) (index int, ok bool) {
	name = strings.TrimSpace(name)
	for i, t := range s.file.Tiers {
		if strings.EqualFold(name, t.Name) {
			return i + 1, true
		}
	}
	return 0, strings.EqualFold(name, Plain)
}

// OfIP returns the exception for an address: that of the longest prefix.
func (s *Set) OfIP(ip netip.Addr) (Exception, bool) { return s.ips.Lookup(ip.Unmap()) }

// OfUser returns the exception for a verified user.
func (s *Set) OfUser(id string) (Exception, bool) {
	e, ok := s.users[id]
	return e, ok
}

// HasUsers says that the file has exceptions for users.
func (s *Set) HasUsers() bool { return len(s.users) > 0 }
