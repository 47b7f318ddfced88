package main

import (
	"fmt"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// standing is what there is to know of a caller besides the state of its buckets.
type standing struct {
	Denied  bool   `json:"denied"`
	Exempt  bool   `json:"exempt"`
	Tier    string `json:"tier"`           // that POLICY_FILE gives the caller; empty: none
	Limited bool   `json:"limits_enabled"` // RATE_LIMIT_ENABLED
}

func (in *inspection) standing(s authz.Subject) standing {
	e := s.Exception(in.set)
	st := standing{Denied: e.Deny, Exempt: e.Exempt, Limited: in.cfg.Authz.LimitEnabled}
	switch tiers := in.cfg.policies.Tiers; {
	case e.Tier == 0:
		st.Tier = policy.Plain
	case e.Tier > 0:
		st.Tier = tiers[e.Tier-1].Name
	}
	return st
}

// notes say in words why a gate does with the caller's requests something else than its
// buckets tell.
func (c shownCaller) notes() (lines []string) {
	if c.Denied {
		lines = append(lines, "denied: 403 for every guarded request (callers of POLICY_FILE)")
	}
	if c.Exempt {
		lines = append(lines, "exempt: no bucket is asked, the queue is (callers of POLICY_FILE)")
	}
	if c.Tier != "" {
		lines = append(lines, "tier: "+c.Tier+" (callers of POLICY_FILE)")
	}
	if !c.Limited {
		lines = append(lines, "RATE_LIMIT_ENABLED=false: no bucket is asked")
	}
	said := ""
	for _, b := range c.Buckets { // those of a policy follow one another
		if b.Shadow && b.Policy != said {
			said = b.Policy
			lines = append(lines, fmt.Sprintf("%s: limits in shadow mode, nothing is refused by them", b.Policy))
		}
	}
	return lines
}
