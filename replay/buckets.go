package replay

import (
	"time"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// buckets are those of a gate, with the clock of the log. When exactly the gate decided a
// request, the log does not say. So a bucket can be full later than it is here: by as long
// as the gate can have taken for the request that found it full.
type buckets struct {
	store *quota.Memory
	start time.Duration            // of the log, since the epoch
	late  map[string]time.Duration // by key: how much later it can be full, if by more than usual
}

// usuallyLate is how much later a bucket can be full if late does not say it.
const usuallyLate = 5 * time.Millisecond

// refuse charges a request to buckets. It returns the key of the one that is empty, or else
// nothing. Where that depends on when exactly the gate decided, the log knows.
func (b buckets) refuse(q request, of []quota.Bucket) (empty string) {
	now := q.decided() - b.start
	justCame := "" // the bucket with a token that was missing before
	for i, bucket := range of {
		of[i].MaxDebt = max(bucket.MaxDebt, bucket.Limit.Span()) + bucket.Limit.Interval // room for a token that is taken early
		full, known := b.store.FullAt(bucket.Key)
		if known {
			since := now - full + bucket.Limit.Span() - bucket.Limit.Interval
			if since >= 0 && since < q.doubt(bucket.Limit, b.lateness(bucket.Key)) {
				justCame = bucket.Key
			}
		}
		if !known || full <= now {
			b.found(bucket.Key, q.took)
		}
	}
	if q.outcome == limited && justCame != "" {
		return justCame
	}
	r := b.store.TakeAt(now, quota.Request{Buckets: of})
	if wait := r.NextToken(); q.outcome == passed && r.Empty() && wait <= q.doubt(r.Limit, 0) {
		r = b.store.TakeAt(now+wait, quota.Request{Buckets: of})
	}
	if r.Empty() {
		return of[r.Bucket].Key
	}
	return ""
}

// doubt is the time within which a token of this limit may or may not have come before the
// decision. It is never a large part of the time that a token takes: else the log would
// decide, and not the limit.
func (q request) doubt(l quota.Limit, late time.Duration) time.Duration {
	return min(q.took+late, l.Interval/10)
}

// found notes that a request has found a bucket full.
func (b buckets) found(key string, took time.Duration) {
	if took > usuallyLate {
		b.late[key] = took
	} else {
		delete(b.late, key)
	}
}

func (b buckets) lateness(key string) time.Duration { return max(usuallyLate, b.late[key]) }
