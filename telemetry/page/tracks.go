package page

import "slices"

const (
	// maxTracks is how many policies have a track of their own. The others share one.
	maxTracks = 12

	policyNone    = "none"    // requests that are not guarded
	policyUnknown = "unknown" // Envoy's route names a policy that does not exist
)

// outcome is what became of a request.
type outcome struct{ verdict, reason string }

// counts are numbers of requests by what became of them.
type counts map[outcome]float64

// decisions calls each with every counter of decisions.
type decisions = func(each func(policy, verdict, reason string, n float64))

// track is what became of the requests of one policy, or of several, in each slot.
type track struct {
	name   string
	merged int    // how many policies these are; 0: one
	last   counts // at the last look; nil: there was none
	slots  map[outcome]*[slots]uint32
}

// tracks are those of the policies in force. The zero value has none.
type tracks struct {
	policies []Policy
	list     []*track          // in the order of the page
	of       map[string]*track // by policy
}

// follow has the tracks be those of these policies, in the order of the file. What is known
// of a policy that stays is kept.
func (ts *tracks) follow(policies []Policy) {
	if ts.of != nil && slices.Equal(policies, ts.policies) {
		return
	}
	before := *ts
	*ts = tracks{policies: policies, of: make(map[string]*track)}
	own := policies[:min(len(policies), maxTracks)]
	for _, p := range own {
		ts.add(p.Name, before.find(p.Name))
	}
	if rest := policies[len(own):]; len(rest) > 0 {
		t := &track{slots: make(map[outcome]*[slots]uint32)}
		if i := slices.IndexFunc(before.list, func(t *track) bool { return t.merged > 0 }); i >= 0 {
			t.slots = before.list[i].slots
		}
		if before.of == nil {
			t.last = counts{}
		}
		t.merged = len(rest)
		ts.list = append(ts.list, t)
		for _, p := range rest {
			ts.of[p.Name] = t
		}
	}
	for _, name := range []string{policyUnknown, policyNone} {
		if ts.of[name] == nil {
			ts.add(name, before.find(name))
		}
	}
}

// find returns the track of a policy; nil if it is new. Its counters are new then, too.
func (ts *tracks) find(policy string) *track {
	t := ts.of[policy]
	if t != nil && t.merged > 0 {
		return &track{slots: make(map[outcome]*[slots]uint32)} // what it counted before is not known
	}
	return t
}

func (ts *tracks) add(policy string, t *track) {
	if t == nil {
		t = &track{last: counts{}, slots: make(map[outcome]*[slots]uint32)}
	}
	t.name = policy
	ts.list = append(ts.list, t)
	ts.of[policy] = t
}

// sum returns the counters by track. It leaves out those of policies that are gone.
func (ts *tracks) sum(decisions decisions) map[*track]counts {
	sum := make(map[*track]counts, len(ts.list))
	for _, t := range ts.list {
		sum[t] = make(counts)
	}
	decisions(func(policy, verdict, reason string, n float64) {
		if t := ts.of[policy]; t != nil {
			sum[t][outcome{verdict, reason}] += n
		}
	})
	return sum
}

// gained returns by how much the counters have grown since the last look. A counter that is
// lower than before has begun anew; of several policies, one may be gone.
func (t *track) gained(now counts) counts {
	gained := make(counts)
	if t.last == nil {
		return gained
	}
	for o, n := range now {
		switch before := t.last[o]; {
		case n > before:
			gained[o] = n - before
		case n < before && t.merged == 0:
			gained[o] = n
		}
	}
	return gained
}

// enter fills a slot with what the counters have gained up to now.
func (t *track) enter(at int, now counts) {
	for _, ring := range t.slots {
		ring[at] = 0
	}
	for o, n := range t.gained(now) {
		if n == 0 {
			continue
		}
		if t.slots[o] == nil {
			t.slots[o] = new([slots]uint32)
		}
		t.slots[o][at] = uint32(n)
	}
	t.last = now
}
