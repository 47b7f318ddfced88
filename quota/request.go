package quota

import "time"

// Bucket is one bucket of a caller, and the limit that applies to it.
type Bucket struct {
	// Key is the name of the bucket in the store; see [Key].
	Key   string
	Limit Limit
	// MaxDebt is the most that the bucket can owe: the longest span of all limits that
	// apply to it, if there are several, as for the tiers of a caller. So a request with a
	// shorter span does not fill the bucket. 0 is the span of Limit.
	MaxDebt time.Duration
}

// maxDebt is MaxDebt, or what it stands for.
func (b Bucket) maxDebt() time.Duration { return max(b.MaxDebt, b.Limit.Span()) }

// Request asks for one token from each bucket of a caller.
type Request struct {
	// Buckets are the buckets, one at least, each only once.
	Buckets []Bucket
	// Recorded says that the limits are not enforced: the caller goes on with an empty
	// bucket too. So an empty bucket does not keep it from a place in the queue.
	Recorded bool
	// Place is the place in a queue that the caller asks for. A store that can't give
	// places leaves it at that: Result.Place is PlaceNotAsked then.
	Place Place
}

// Place is the wish for a place in a queue. The zero value is no wish.
type Place struct {
	Mode PlaceMode
	// Queue is the queue; nil with PlaceNone.
	Queue *Queue
	// Limit is the number of jobs, waiting or on their way, at which the queue is full for
	// this caller.
	Limit int
	// Share bounds the jobs of one caller to so many times the places that stay free below
	// Limit; 0: there is no such bound. Caller is whose jobs count together.
	Share  float64
	Caller string
}

// sameShape says that two places are the same, but may be for different callers.
func (p Place) sameShape(other Place) bool {
	other.Caller = p.Caller
	return p == other
}

// share is Share as an argument; that there is none costs no allocation.
func (p Place) share() any {
	if p.Share == 0 {
		return 0
	}
	return p.Share
}

// Queue is a queue in the same Redis, as the Lua of the store reads it. Queues with the
// same first key are the same queue.
type Queue struct {
	Keys []string
	Args []any
}

func (q *Queue) same(other *Queue) bool { return q == other || q.Keys[0] == other.Keys[0] }

// PlaceMode is how a request asks for a place in the queue; take.lua knows the numbers.
type PlaceMode int

// The modes.
const (
	// PlaceNone asks for no place.
	PlaceNone PlaceMode = iota
	// PlaceRequired asks for tokens and a place together: it gets both or none.
	PlaceRequired
	// PlaceIfKnown is the same, but while the queue can't be read, tokens are enough.
	PlaceIfKnown
	// PlaceRecorded asks for a place that is counted, but not required.
	PlaceRecorded
)

// PlaceOutcome is what became of the wish for a place; take.lua knows the numbers.
type PlaceOutcome int

// The outcomes.
const (
	// PlaceNotAsked says that nobody asked the queue.
	PlaceNotAsked PlaceOutcome = iota
	// PlaceGiven says that the place was given, and counted.
	PlaceGiven
	// PlaceFull says that the queue is full.
	PlaceFull
	// PlaceUnknown says that the queue can't be read.
	PlaceUnknown
	// PlaceShare says that the caller has its share of the queue already.
	PlaceShare
)
