package quota

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// knownFor is how long a refusal is remembered at most. So the gate notices after that
	// time what it can't see: somebody deletes a bucket, Redis loses its data, Redis's clock
	// is set, or a gate with a lower limit shortens the debt (see take.lua).
	knownFor = time.Second
	// knownSlots bounds how many refusals are remembered.
	knownSlots = 1 << 15
)

// known remembers which requests Redis has just refused because of an empty bucket, so
// that the next request for the same buckets is refused without asking again. A debt only
// grows by what other gates take, and falls with time. So until the bucket has its next
// token, Redis would refuse too. known is not for buckets that get refunds.
//
// All buckets of a request count: another one may be empty for longer, and then the caller
// would be told to come back too early.
//
// It is safe for concurrent use, without locks. A request has one slot, which it loses to
// another one with the same slot.
type known struct {
	seed  maphash.Seed
	slots [knownSlots]atomic.Pointer[refusal]
}

// refusal is what Redis said at some time between question and answer.
type refusal struct {
	keys            []string // of all buckets of the request
	bucket          int      // the index of the empty one
	debt            time.Duration
	asked, answered time.Time
}

func newKnown() *known { return &known{seed: maphash.MakeSeed()} }

func (k *known) slot(buckets []Bucket) *atomic.Pointer[refusal] {
	var h maphash.Hash
	h.SetSeed(k.seed)
	for _, b := range buckets {
		_, _ = h.WriteString(b.Key)
		_ = h.WriteByte(0)
	}
	return &k.slots[h.Sum64()%knownSlots]
}

// remember keeps a result that says that a bucket of a request is empty. Redis was asked
// at the time asked, and has answered at the time answered.
func (k *known) remember(buckets []Bucket, r Result, asked, answered time.Time) {
	e := &refusal{bucket: r.Bucket, debt: r.Debt, asked: asked, answered: answered}
	for _, b := range buckets {
		e.keys = append(e.keys, b.Key)
	}
	k.slot(buckets).Store(e)
}

// refuse returns the result that Redis would give to a request of which a bucket is known
// to be empty; false if none is.
func (k *known) refuse(buckets []Bucket, now time.Time) (r Result, ok bool) {
	e := k.slot(buckets).Load()
	same := func(key string, b Bucket) bool { return key == b.Key }
	if e == nil || now.Sub(e.asked) >= knownFor || !slices.EqualFunc(e.keys, buckets, same) {
		return Result{}, false
	}
	b := buckets[e.bucket]
	debt := min(e.debt, b.maxDebt()) // take.lua would shorten it, if the limit was lowered
	// The debt is at least what is left since the question, which decides, and at most what
	// is left since the answer, which the caller is told. A request can have come before
	// that answer.
	if atLeast := debt - now.Sub(e.asked); atLeast+b.Limit.Interval <= b.Limit.Span() {
		return Result{}, false
	}
	return Result{Bucket: e.bucket, Limit: b.Limit, Debt: debt - max(0, now.Sub(e.answered))}, true
}
