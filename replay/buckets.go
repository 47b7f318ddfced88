package replay

import (
	"context"
	"time"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// buckets are those of a gate, with the clock of the log. When exactly the gate decided a
// request, the log does not say. So a bucket can be full later than it is here: by as long
// as the gate can have taken for the request that found it full.
type buckets struct {
	store *quota.Memory
	start time.Duration            // of the log, since the epoch
	late  map[string]time.Duration // by key: how much later it can be full
}

func newBuckets(requests []request) buckets {
	b := buckets{store: quota.NewMemory(), late: make(map[string]time.Duration)}
	if len(requests) > 0 {
		b.start = requests[0].decided()
	}
	return b
}

// refuse charges a request to buckets and says that one of them is empty. Where that depends
// on when exactly the gate decided, the log knows.
func (b buckets) refuse(q request, of []quota.Bucket) bool {
	now := q.decided() - b.start
	for _, bucket := range of {
		if b.store.DebtAt(now, bucket) == 0 {
			b.late[bucket.Key] = q.took
		}
	}
	r := b.store.TakeAt(now, quota.Request{Buckets: of})
	switch {
	case q.outcome == passed && r.Empty() && r.NextToken() <= q.took:
		r = b.store.TakeAt(now+r.NextToken(), quota.Request{Buckets: of})
	case q.outcome == limited && r.Taken && r.Remaining() == 0 && r.Limit.Span()-r.Debt < q.took+b.late[of[r.Bucket].Key]:
		_ = b.store.Refund(context.Background(), r, of) // a Memory never fails
		return true
	}
	return r.Empty()
}
