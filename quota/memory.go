package quota

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// maxBuckets bounds the size of a Memory: it has room for a million callers with an
	// address and a user each, and for those that the sweep has not yet found full.
	maxBuckets = 9 << 18
	// MemoryBytes is what the buckets of a Memory need when it is full: 45 MB.
	MemoryBytes = maxBuckets * 6 / 5 * 16
	// sharedRoom is room for the shared buckets besides, one for each limit there is. Above
	// that, the table has free slots for half a million; the limits of the largest policy
	// file are fewer.
	sharedRoom = 64
	// sweepStep is how many places each Take looks at to find full buckets. In the time in
	// which the sweep comes to all places, Takes can add a sixteenth of them at most.
	sweepStep = 32
)

// Memory keeps the buckets in this process. It is the store of a gate without Redis,
// and the fallback while Redis is away. It is safe for concurrent use.
//
// It holds a bounded number of buckets. It never forgets a bucket that is not full,
// because that would refill it. Callers for whom there is no room share one bucket.
type Memory struct {
	start time.Time
	max   int

	mu      sync.Mutex
	buckets *table // when each will be full, as time since start
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store. It sets memory of [MemoryBytes] aside at once; the
// system gives it as buckets come.
func NewMemory() *Memory { return NewMemoryOf(maxBuckets) }

// NewMemoryOf is NewMemory with room for so many buckets, each of which needs 20 bytes.
func NewMemoryOf(most int) *Memory {
	return &Memory{start: time.Now(), max: most, buckets: newTable(most + sharedRoom)}
}

// Take implements [Store]. It never fails, and gives no places.
func (m *Memory) Take(_ context.Context, req Request) (Result, error) {
	return m.TakeAt(m.now(), req), nil
}

// TakeAt is Take at a time since the beginning, when all buckets were full. A store that is
// used with TakeAt must not be used with Take.
func (m *Memory) TakeAt(now time.Duration, req Request) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buckets.sweep(now, sweepStep)
	buckets := m.places(req.Buckets)

	e := emptiest{enough: true}
	for i, b := range buckets {
		id := m.buckets.id(b.Key)
		debt := max(0, m.buckets.find(id).fullAt-now)
		if debt > b.maxDebt() { // the limit was lowered
			debt = b.maxDebt()
			m.buckets.put(id, now+debt)
		}
		e.look(i, b.Limit, debt)
	}
	r := Result{Taken: e.enough, Bucket: e.bucket, Limit: buckets[e.bucket].Limit, Debt: e.debt}
	if r.Taken {
		for i, b := range buckets {
			if charged(buckets, i) {
				continue
			}
			id := m.buckets.id(b.Key)
			m.buckets.put(id, max(now, m.buckets.find(id).fullAt)+b.Limit.Interval)
		}
		r.Debt += r.Limit.Interval
	}
	return r
}

// FullAt returns when a bucket will be full, or has been, as a time as of TakeAt. It is not
// known if the bucket has been full for long or was never used.
func (m *Memory) FullAt(key string) (at time.Duration, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.buckets.find(m.buckets.id(key))
	return s.fullAt, s.id != 0
}

// Refund implements [Store]. It never fails.
func (m *Memory) Refund(_ context.Context, _ Result, buckets []Bucket) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	places := m.places(buckets)
	for i, b := range places {
		if s := m.buckets.find(m.buckets.id(b.Key)); s.id != 0 && !charged(places, i) {
			s.fullAt -= b.Limit.Interval // the sweep finds it if it is full now
		}
	}
	return nil
}

func (m *Memory) now() time.Duration { return time.Since(m.start) }

// places returns the buckets to use, in the order of the others. The shared bucket of the
// limit stands in for those that do not exist yet while there is no room. So it can stand
// for several: see charged.
func (m *Memory) places(buckets []Bucket) []Bucket {
	if m.buckets.used+len(buckets) <= m.max {
		return buckets
	}
	places := slices.Clone(buckets)
	for i, b := range places {
		if m.buckets.find(m.buckets.id(b.Key)).id == 0 {
			places[i].Key = "shared:" + strconv.FormatInt(int64(b.Limit.Interval), 10)
		}
	}
	return places
}

// charged says that the bucket with index i stands among the ones before it already. A
// request pays one token to a bucket.
func charged(places []Bucket, i int) bool {
	return slices.ContainsFunc(places[:i], func(p Bucket) bool { return p.Key == places[i].Key })
}
