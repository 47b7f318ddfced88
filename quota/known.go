package quota

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

const (
	// knownFor is how long Redis's word that a bucket is empty counts at most. What happens
	// to a bucket out of the gate's sight is noticed after that time: somebody deletes it,
	// Redis loses its data or gets another time, a gate with a lower limit cuts its debt.
	knownFor = time.Second
	// knownSlots bounds how many buckets are remembered.
	knownSlots = 1 << 15
)

// known remembers which buckets Redis has found empty, so that their callers are refused
// without asking again. A debt only grows by what other gates take, and falls with time.
// So until a bucket has its next token, Redis would refuse too. known is not for buckets
// that get refunds.
//
// It is safe for concurrent use, without locks. A bucket has one slot, which it loses to
// another bucket with the same slot.
type known struct {
	seed  maphash.Seed
	slots [knownSlots]atomic.Pointer[knownBucket]
}

// knownBucket is a bucket that was empty. Redis said so at some time between question and
// answer.
type knownBucket struct {
	key             string
	debt            time.Duration
	asked, answered time.Time
}

func newKnown() *known { return &known{seed: maphash.MakeSeed()} }

func (k *known) slot(key string) *atomic.Pointer[knownBucket] {
	return &k.slots[maphash.String(k.seed, key)%knownSlots]
}

// remember keeps a result that says that a bucket is empty. Redis was asked at the time
// asked, and has answered at the time answered.
func (k *known) remember(b Bucket, r Result, asked, answered time.Time) {
	k.slot(b.Key).Store(&knownBucket{key: b.Key, debt: r.Debt, asked: asked, answered: answered})
}

// refuse returns the result that Redis would give to a request of which a bucket is known
// to be empty; false if none is.
func (k *known) refuse(buckets []Bucket, now time.Time) (r Result, ok bool) {
	e := emptiest{enough: true}
	for i, b := range buckets {
		known := k.slot(b.Key).Load()
		if known == nil || known.key != b.Key || now.Sub(known.asked) >= knownFor {
			continue
		}
		debt := min(known.debt, b.maxDebt()) // a lowered limit cuts a debt
		if atLeast := debt - now.Sub(known.asked); atLeast+b.Limit.Interval > b.Limit.Span() {
			e.look(i, b.Limit, debt-now.Sub(known.answered))
		}
	}
	if e.enough {
		return Result{}, false
	}
	return Result{Bucket: e.bucket, Limit: buckets[e.bucket].Limit, Debt: e.debt}, true
}
