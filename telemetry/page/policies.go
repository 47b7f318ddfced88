package page

import (
	"cmp"
	"maps"
	"slices"
)

// policyView is what became of the requests of one policy, or of several.
type policyView struct {
	Name          string
	Merged        int     // how many policies these are; 0: one
	LimitsOff     bool    // it has limits, which are not asked
	Limits, Queue *Number // whether the check is in shadow mode; nil: there is no such check
	Total         string  // requests of the last minutes
	Chart         stack
	Rows          []row
	Refused       []refused // of several, those with the most refusals since the start
}

// refused is a policy without a chart, and how many requests it has refused.
type refused struct{ Name, Count string }

// maxRefused is how many policies without a chart are named for their refusals.
const maxRefused = 10

// row is one outcome of requests.
type row struct {
	Kind   string // a class of the style sheet
	Answer string // allowed, passed, 429, 503 or 403
	Reason string
	Recent string  // how many there were in the last minutes
	Ever   *Number // how many there were since the start
}

// kinds are the kinds of outcomes, in the order of the chart from the ground up.
var kinds = []string{"allowed", "passed", "k429", "k503", "k403"}

// answers is what a client gets, by kind.
var answers = map[string]string{"allowed": "allowed", "passed": "let through", "k429": "429", "k503": "503", "k403": "403"}

// kind returns the kind of an outcome. Requests that a shadow mode or a failure mode let
// through are told apart from those that nothing spoke against.
func (o outcome) kind() string {
	switch {
	case o.verdict == "allow" && slices.Contains([]string{"ok", "exempt", "preflight", "not_guarded"}, o.reason):
		return "allowed"
	case o.verdict == "allow":
		return "passed"
	case o.reason == "rate_limited" || o.reason == "queue_share":
		return "k429"
	case o.reason == "forbidden":
		return "k403"
	default:
		return "k503"
	}
}

// maxInShadow is how many checks in shadow mode are named, of policies without a chart.
const maxInShadow = 50

// policies returns the policies that have a chart, and which checks of others are in shadow
// mode.
func (p *Page) policies(m metrics, in InForce, shadows map[check]series) (all []policyView, inShadow []string) {
	tracks := p.history.recent(in.Policies, m.decisions)
	ever := make(map[string]map[outcome]series, len(tracks))
	for _, r := range tracks {
		if r.Merged == 0 {
			ever[r.Name] = make(map[outcome]series)
		}
	}
	for _, s := range m.all("refrakt_gate_decisions_total") {
		if counters := ever[s.of["policy"]]; counters != nil {
			counters[outcome{s.of["verdict"], s.of["reason"]}] = s
		}
	}
	mode := func(policy Policy, name string) *Number {
		s, exists := shadows[check{policy.Name, name}]
		if !exists || !slices.Contains(in.checks(policy), name) {
			return nil
		}
		return s.number(func(on float64) string {
			if on == 1 {
				return "shadow mode"
			}
			return "enforced"
		})
	}
	for _, r := range tracks {
		v := policyView{Name: r.Name, Merged: r.Merged, Chart: newStack(r.Bars)}
		if i := slices.IndexFunc(in.Policies, func(p Policy) bool { return p.Name == r.Name }); i >= 0 {
			policy := in.Policies[i]
			v.LimitsOff = policy.Limited && in.LimitsOff
			v.Limits, v.Queue = mode(policy, "limit"), mode(policy, "queue")
		}
		total := 0.0
		for _, n := range r.Sum {
			total += n
		}
		v.Total = count(total)
		v.Rows = rows(r, ever[r.Name])
		if r.Merged > 0 {
			v.Refused = mostRefused(m, in.Policies[maxTracks:])
		}
		if len(v.Rows) > 0 || r.Name != policyNone && r.Name != policyUnknown {
			all = append(all, v)
		}
	}
	for _, policy := range in.Policies[min(len(in.Policies), maxTracks):] {
		for _, name := range in.checks(policy) {
			if shadows[check{policy.Name, name}].value == 1 {
				inShadow = append(inShadow, policy.Name+": "+name)
			}
		}
	}
	if more := len(inShadow) - maxInShadow; more > 0 {
		inShadow = append(inShadow[:maxInShadow], "and "+count(float64(more))+" more")
	}
	return all, inShadow
}

// mostRefused returns those of the policies that have refused requests, the most first.
func mostRefused(m metrics, policies []Policy) (all []refused) {
	denied := make(map[string]float64)
	m.decisions(func(policy, verdict, _ string, n float64) {
		if verdict == "deny" {
			denied[policy] += n
		}
	})
	policies = slices.DeleteFunc(slices.Clone(policies), func(p Policy) bool { return denied[p.Name] == 0 })
	slices.SortStableFunc(policies, func(a, b Policy) int { return cmp.Compare(denied[b.Name], denied[a.Name]) })
	for _, p := range policies[:min(len(policies), maxRefused)] {
		all = append(all, refused{p.Name, count(denied[p.Name])})
	}
	return all
}

// rows returns the outcomes that there were, in the order of kinds.
func rows(r recent, ever map[outcome]series) (all []row) {
	outcomes := slices.Collect(maps.Keys(r.Sum))
	for o, s := range ever {
		if _, listed := r.Sum[o]; !listed && s.value > 0 {
			outcomes = append(outcomes, o)
		}
	}
	slices.SortFunc(outcomes, func(a, b outcome) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.kind()), slices.Index(kinds, b.kind())), cmp.Compare(a.reason, b.reason))
	})
	for _, o := range outcomes {
		row := row{Kind: o.kind(), Answer: answers[o.kind()], Reason: o.reason, Recent: count(r.Sum[o])}
		if s, exists := ever[o]; exists {
			row.Ever = s.number(count)
		}
		all = append(all, row)
	}
	return all
}
