package load

import (
	"slices"
	"time"
)

// bucket is a token bucket as the settings describe it.
type bucket struct {
	capacity int
	interval time.Duration // in which one token is refilled
}

var buckets = map[string]bucket{
	policyRun:       {runBurst, time.Minute / runPerMinute},
	policyAssistant: {assistantBurst, time.Minute / assistantPerMinute},
}

// bounds is how many of one user's requests, not empty, its bucket can have admitted if it was full before the first
// and nothing else kept them out. All that is known of a take is that it happened between sent and answered.
func (b bucket) bounds(answers []Answer) (least, most int) {
	var sent, done []time.Time
	for _, a := range answers {
		sent, done = append(sent, a.Sent), append(done, a.Done)
	}
	// Takes in order of time: the k-th is not before the k-th sent, nor after the k-th answered, also where requests
	// overtake one another.
	slices.SortFunc(sent, time.Time.Compare)
	slices.SortFunc(done, time.Time.Compare)

	// At most what was in it, and what the whole time refills.
	most = min(len(sent), b.capacity+int(done[len(done)-1].Sub(sent[0])/b.interval))

	// At least what is taken by the clock on which the least time passes between takes. Less refill never admits more.
	var debt time.Duration // until the bucket is full
	for k := range sent {
		if k > 0 {
			debt = max(0, debt-max(0, sent[k].Sub(done[k-1])))
		}
		if debt+b.interval <= time.Duration(b.capacity)*b.interval {
			debt += b.interval
			least++
		}
	}
	return least, most
}
