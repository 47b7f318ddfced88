package replay

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// Replay holds the requests of access logs. Call Read for each log, then Run.
type Replay struct {
	set      *policy.Set
	byPath   bool
	index    map[*policy.Policy]int32
	requests []request
	names    names
	parser   fastjson.Parser
	report   Report
}

// request is a line of an access log, in little memory. ip, user and tier are indexes of
// names.
type request struct {
	at             time.Duration // since the epoch: when it came
	took           time.Duration // how much later the gate can have decided
	policy         int32         // index of the policy
	ip, user, tier int32
	outcome        outcome
	refused        bool  // by a bucket, with the limits of the replay
	emptied        int32 // whose bucket that is: ip or user; 0: that of all callers
}

// decided is a time at which the gate can have decided. When it did, the log does not say to
// the microsecond. Where a bucket had its last token, the requests that it let pass came
// before those that it refused.
func (q request) decided() time.Duration {
	if q.outcome == limited {
		return q.at + q.took
	}
	return q.at
}

// New returns a Replay with these policies. A request falls under the policy that the log
// names or, with byPath, under that of its path.
func New(set *policy.Set, byPath bool) *Replay {
	r := &Replay{set: set, byPath: byPath, index: make(map[*policy.Policy]int32)}
	for i, p := range set.Policies() {
		r.index[p] = int32(i) //nolint:gosec // a policy file has far fewer
	}
	r.names.id("")
	return r
}

// Only says which requests are counted: those of an address, of a user, or of both; the zero
// value counts all. IP and User are those of decision.proto.
type Only struct{ IP, User string }

// Report is what a replay found.
type Report struct {
	// Lines are the lines that were read.
	Lines  int    `json:"lines"`
	Unused Unused `json:"unused"`
	// From and To are the times of the first and the last request that was counted.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Compared is how many of the counted requests the buckets had decided when the log was
	// written, and Same how many of these they decide in the same way now.
	Compared int `json:"compared"`
	Same     int `json:"same"`
	// Hours are by policy, in the order of the file, and by hour. Hours without a request
	// are not there.
	Hours []Hour `json:"hours"`
	// Callers are the addresses and users with a request that is or was refused by a bucket,
	// those with most refusals first.
	Callers []Caller `json:"callers"`
}

// Unused counts the lines that were not used.
type Unused struct {
	// Unreadable lines are no JSON, have no time or are too long.
	Unreadable int `json:"unreadable"`
	// NotAsked lines have no verdict: the gate was not asked.
	NotAsked int `json:"not_asked"`
	// NotGuarded lines fall under no policy.
	NotGuarded int `json:"not_guarded"`
	// NoCaller lines do not say who sent the request.
	NoCaller int `json:"no_caller"`
}

// Counts are numbers of requests.
type Counts struct {
	Requests int `json:"requests"`
	// Refused would be refused by a bucket.
	Refused int `json:"refused"`
	// Recorded were refused by a bucket when the log was written, or would have been without
	// the shadow mode.
	Recorded int `json:"recorded"`
	// Queue were refused by the queue, and Other for other reasons, when the log was written.
	// The replay leaves these as they are, and charges nothing for them.
	Queue int `json:"queue"`
	Other int `json:"other"`
}

// Hour is what became of the requests under one policy in one hour.
type Hour struct {
	Policy string    `json:"policy"`
	Hour   time.Time `json:"hour"` // when it began
	Counts
}

// Caller is what became of the requests of an address or a user under one policy.
type Caller struct {
	Caller string `json:"caller"` // "ip:", "user:" or "jwt:", and a hash
	Policy string `json:"policy"`
	Counts
	// Own is how many of Refused are for a bucket of its own. The others are for that of the
	// user who came from this address, or of the address of this user, or of all callers.
	Own int `json:"own"`
}

type hourKey struct {
	policy int32
	hour   int64
}

type callerKey struct {
	policy, name int32
}

// Run decides the requests in the order of their times and counts those of only. All buckets
// are full at first. Run can be called once.
func (r *Replay) Run(only Only) Report {
	slices.SortStableFunc(r.requests, func(a, b request) int {
		return cmp.Or(cmp.Compare(a.decided(), b.decided()), cmp.Compare(a.outcome, b.outcome))
	})
	r.decide()
	hours, callers := make(map[hourKey]*Counts), r.refusedCallers()
	wanted := request{ip: r.names.id(only.IP), user: r.names.id(only.User)}
	for _, q := range r.requests {
		if wanted.ip != 0 && q.ip != wanted.ip || wanted.user != 0 && q.user != wanted.user {
			continue
		}
		if r.report.To = time.Unix(0, int64(q.at)).UTC(); r.report.From.IsZero() {
			r.report.From = r.report.To
		}
		if q.outcome == passed || q.outcome == limited {
			r.report.Compared++
			if q.refused == (q.outcome == limited) {
				r.report.Same++
			}
		}
		key := hourKey{q.policy, r.report.To.Truncate(time.Hour).Unix()}
		if hours[key] == nil {
			hours[key] = new(Counts)
		}
		hours[key].add(q)
		for _, name := range []int32{q.ip, q.user} {
			if c := callers[callerKey{q.policy, name}]; c != nil {
				c.add(q)
				if q.emptied == name {
					c.Own++
				}
			}
		}
	}
	r.list(hours, callers)
	return r.report
}

// decide has the buckets decide all requests, in their order.
func (r *Replay) decide() {
	if len(r.requests) == 0 {
		return
	}
	policies, kinds := r.set.Policies(), 0
	for _, p := range policies {
		kinds += len(p.Buckets)
	}
	room := len(r.names.all) * kinds // for the buckets of each name
	b := buckets{store: quota.NewMemoryOf(room), start: r.requests[0].decided(), late: make(map[string]time.Duration)}
	charges := authz.NewCharges(r.set)
	for i := range r.requests {
		if q := &r.requests[i]; q.isCharged(policies[q.policy]) {
			of := charges.Of(policies[q.policy], r.names.all[q.ip], r.names.all[q.user], r.names.all[q.tier])
			if len(of) == 0 {
				continue
			}
			empty := b.refuse(*q, of)
			q.refused = empty != ""
			for _, name := range []int32{q.ip, q.user} {
				if name != 0 && strings.HasSuffix(empty, r.names.all[name]) {
					q.emptied = name
				}
			}
		}
	}
}

// refusedCallers has a place for each caller with a request that is or was refused.
func (r *Replay) refusedCallers() map[callerKey]*Caller {
	callers := make(map[callerKey]*Caller)
	for _, q := range r.requests {
		if !q.refused && q.outcome != limited {
			continue
		}
		for _, name := range []int32{q.ip, q.user} {
			if key := (callerKey{q.policy, name}); name != 0 && callers[key] == nil {
				callers[key] = &Caller{Caller: r.names.all[name], Policy: r.set.Policies()[q.policy].Name}
			}
		}
	}
	return callers
}

// isCharged says whether a request asks the buckets. One that the queue refused does so if
// its policy has no queue any more.
func (q request) isCharged(p *policy.Policy) bool {
	switch q.outcome {
	case exempt, byOther:
		return false
	case byQueue:
		return p.Queue == ""
	default:
		return true
	}
}

// Plus returns the sums of the numbers.
func (c Counts) Plus(other Counts) Counts {
	return Counts{
		Requests: c.Requests + other.Requests, Refused: c.Refused + other.Refused, Recorded: c.Recorded + other.Recorded,
		Queue: c.Queue + other.Queue, Other: c.Other + other.Other,
	}
}

func (c *Counts) add(q request) {
	c.Requests++
	if q.refused {
		c.Refused++
	}
	switch q.outcome {
	case limited:
		c.Recorded++
	case byQueue:
		c.Queue++
	case byOther:
		c.Other++
	case passed, undecided, exempt:
	}
}

// list fills the lists of the report.
func (r *Replay) list(hours map[hourKey]*Counts, callers map[callerKey]*Caller) {
	policies := r.set.Policies()
	r.report.Hours, r.report.Callers = []Hour{}, []Caller{}
	keys := make([]hourKey, 0, len(hours))
	for k := range hours {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b hourKey) int { return cmp.Or(cmp.Compare(a.policy, b.policy), cmp.Compare(a.hour, b.hour)) })
	for _, k := range keys {
		r.report.Hours = append(r.report.Hours, Hour{policies[k.policy].Name, time.Unix(k.hour, 0).UTC(), *hours[k]})
	}
	for _, c := range callers {
		if c.Requests > 0 { // else it is not one of those that are counted
			r.report.Callers = append(r.report.Callers, *c)
		}
	}
	slices.SortFunc(r.report.Callers, func(a, b Caller) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(b.Recorded, a.Recorded), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Policy, b.Policy))
	})
}

// names are texts that come again and again, each kept once.
type names struct {
	ids map[string]int32
	all []string
}

// id returns the index of a text. That of the first text is 0.
func (n *names) id(text string) int32 {
	id, ok := n.ids[text]
	if !ok {
		if n.ids == nil {
			n.ids = make(map[string]int32)
		}
		id = int32(len(n.all)) //nolint:gosec // memory for so many lines does not exist
		n.ids[text] = id
		n.all = append(n.all, text)
	}
	return id
}
