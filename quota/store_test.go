package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// FuzzStores: the scripts and the store in memory give the same answers and hold the same
// debts in the end. Each byte is one operation: time passes, an earlier Take is refunded,
// or tokens are taken. The seeds are long, so that `go test` alone finds a difference.
//
// To let minutes pass, the test moves what is stored. A token takes an hour, so the
// duration of a call does not count.
func FuzzStores(f *testing.F) {
	f.Add(uint8(3), uint8(0), []byte{2, 2, 2, 18, 1, 2, 0, 16, 2, 34})
	f.Add(uint8(1), uint8(40), []byte("take, refund and pass"))
	random := rand.New(rand.NewPCG(1, 0))
	for range 30 {
		ops := make([]byte, 300)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		f.Add(uint8(random.Uint32()), uint8(random.Uint32()), ops)
	}
	rdb := redistest.Start(f).Client(f)
	f.Fuzz(func(t *testing.T, capacity, multiplier uint8, ops []byte) {
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		tiers := Limits(1+int64(capacity%8), 1, time.Hour, 1, 1+float64(multiplier)/64)
		limits := []Limit{tiers[0], tiers[1], tiers[0].Scaled(0.5)}
		shared, memory := NewRedis(rdb, ""), NewMemoryOf(1000)
		type paid struct {
			result  Result
			buckets []Bucket
		}
		var taken []paid
		for i, op := range ops[:min(len(ops), 300)] {
			switch what, which := op%8, int(op/8); {
			case what == 0:
				d := time.Duration(1+which) * 7 * time.Minute
				passRedis(t, rdb, d)
				memory.start = memory.start.Add(-d)
			case what == 1 && len(taken) > 0:
				p := taken[len(taken)-1-which%len(taken)]
				if err := errors.Join(shared.Refund(t.Context(), p.result, p.buckets), memory.Refund(t.Context(), p.result, p.buckets)); err != nil {
					t.Fatalf("step %d: refund: %v", i, err)
				}
			default:
				req := of(limits[(what+byte(i))%3], fmt.Sprint("ip", which&3))
				if which&4 != 0 {
					req.Buckets = append(req.Buckets, Bucket{Key: fmt.Sprint("user", which>>3), Limit: limits[(which+i)%3], MaxDebt: MaxDebt(tiers)})
				}
				r1, err1 := shared.Take(t.Context(), req)
				r2, err2 := memory.Take(t.Context(), req)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatalf("step %d: take: %v", i, err)
				}
				if differ(r1, r2) {
					t.Fatalf("step %d: take %+v: redis %+v, memory %+v", i, req, r1, r2)
				}
				if r1.Taken {
					taken = append(taken, paid{r1, req.Buckets})
				}
			}
		}
		wantSameDebts(t, rdb, memory)
	})
}

// differ compares the results of two stores. Of two buckets that are as empty as each
// other, each may name another one.
func differ(a, b Result) bool {
	return a.Taken != b.Taken || a.Remaining() != b.Remaining() ||
		!a.Taken && (a.NextToken()-b.NextToken()).Abs() > maxStall ||
		a.Bucket == b.Bucket && (a.Debt-b.Debt).Abs() > maxStall
}

// maxStall is how much later than the other a store may be asked. It is far below the
// times in a case.
const maxStall = 30 * time.Second

// wantSameDebts compares what the stores hold.
func wantSameDebts(t *testing.T, rdb *redis.Client, memory *Memory) {
	t.Helper()
	now, err := rdb.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ip", "user"} {
		for n := range 4 {
			key := fmt.Sprint(kind, n)
			full, err := rdb.Get(t.Context(), key).Int64()
			if err != nil && !errors.Is(err, redis.Nil) {
				t.Fatal(err)
			}
			stored, debt := time.Unix(0, full).Sub(now), memory.debt(key)
			if stored, debt = max(0, stored), max(0, debt); (stored - debt).Abs() > maxStall {
				t.Errorf("%s: debt %v in Redis, %v in memory", key, stored, debt)
			}
			if ttl := rdb.PTTL(t.Context(), key).Val(); err == nil && (ttl-stored).Abs() > maxStall {
				t.Errorf("%s: the key expires in %v, the bucket is full in %v", key, ttl, stored)
			}
		}
	}
}

// passRedis lets the time d pass for every bucket.
func passRedis(t *testing.T, rdb *redis.Client, d time.Duration) {
	t.Helper()
	ctx := t.Context()
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := rdb.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		full, err := rdb.Get(ctx, key).Int64()
		if err != nil {
			t.Fatal(err)
		}
		full -= d.Nanoseconds()
		if left := time.Duration(full - now.UnixNano()); left > 0 {
			err = rdb.Set(ctx, key, full, left+time.Millisecond).Err()
		} else {
			err = rdb.Del(ctx, key).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRedisKeys checks what is stored: the time at which the bucket is full, in
// nanoseconds and a millisecond later, under a key that expires within that millisecond.
func TestRedisKeys(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	ctx := t.Context()
	limit := Limit{Capacity: 10, Interval: 10 * time.Second}
	key := Key("run", "ip:203.0.113.9")
	if want := "refrakt:gate:bucket:run:ip:203.0.113.9"; key != want {
		t.Errorf("key %q, want %q", key, want)
	}
	if _, err := NewRedis(rdb, "").Take(ctx, of(limit, key)); err != nil {
		t.Fatal(err)
	}
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	text, err := rdb.Get(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	full, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("the value %q is not a whole number: it lost digits", text)
	}
	if d := time.Unix(0, full).Sub(now); d > limit.Interval+time.Millisecond || d < limit.Interval-5*time.Second {
		t.Errorf("full in %v, want almost %v", d, limit.Interval)
	}
	expires, err := rdb.PExpireTime(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	if d := expires - (time.Duration(full) - time.Millisecond); d <= 0 || d > time.Millisecond {
		t.Errorf("expires %v after it is full, want 0 to 1 ms", d)
	}
}

// TestRedisIsExact: at the highest rate, and at one whose interval is no whole number of
// microseconds, each Take moves the time at which the bucket is full by one interval, to
// the nanosecond, though it takes the other way through a double.
func TestRedisIsExact(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	store := NewRedis(rdb, "")
	for _, perMinute := range []int64{1_000_000, 700_001} {
		limit := Limits(1_000_000, perMinute, time.Minute, 1)[0]
		key := fmt.Sprint("a", perMinute)
		// The bucket owes much, so that it is not full before the end of the test.
		begin := time.Now().Add(limit.Span() / 2).UnixNano()
		if err := rdb.Set(t.Context(), key, begin, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		for n := range int64(100) {
			if r, err := store.Take(t.Context(), of(limit, key)); err != nil || !r.Taken {
				t.Fatalf("take: %+v, %v", r, err)
			}
			full, err := rdb.Get(t.Context(), key).Int64()
			if want := begin + (n+1)*int64(limit.Interval); err != nil || full != want {
				t.Fatalf("%d a minute: after %d takes the bucket is full at %d, %d off; %v", perMinute, n+1, full, full-want, err)
			}
		}
	}
}

// TestRedisClockSetBack stores a bucket that owes more than an empty bucket can, as after
// the clock was set back.
func TestRedisClockSetBack(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	ctx := t.Context()
	limit := Limit{Capacity: 2, Interval: 10 * time.Second}
	if err := rdb.Set(ctx, "a", time.Now().Add(time.Hour).UnixNano(), 2*time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	r, err := NewRedis(rdb, "").Take(ctx, of(limit, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Taken || r.NextToken() > limit.Interval {
		t.Errorf("taken %v, wait %v; want an empty bucket with a wait of at most %v", r.Taken, r.NextToken(), limit.Interval)
	}
	if ttl := rdb.PTTL(ctx, "a").Val(); ttl > limit.Span()+time.Second {
		t.Errorf("the bucket still expires in %v: the next wait would be as long again", ttl)
	}
}

// TestRedisLateExpiry stores a bucket that has been full for an hour and whose key has not
// expired: it holds no more than its capacity.
func TestRedisLateExpiry(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	limit := Limit{Capacity: 3, Interval: 20 * time.Minute}
	if err := rdb.Set(t.Context(), "a", time.Now().Add(-time.Hour).UnixNano(), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		r, err := NewRedis(rdb, "").Take(t.Context(), of(limit, "a"))
		if err != nil || r.Taken != (i < 3) {
			t.Errorf("take %d of 3: %+v, %v", i+1, r, err)
		}
	}
}

// TestRedisForeignValue stores values that are no buckets. They must not make every Take
// fail: that would open the breaker for all callers.
func TestRedisForeignValue(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	ctx := t.Context()
	limit := Limit{Capacity: 2, Interval: time.Hour}
	if err := errors.Join(rdb.Set(ctx, "text", "x", 0).Err(), rdb.LPush(ctx, "list", "x").Err()); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"text", "list"} {
		r, err := NewRedis(rdb, "").Take(ctx, of(limit, key))
		if err != nil || !r.Taken || r.Remaining() != 1 {
			t.Errorf("%s: %+v, %v; want a full bucket", key, r, err)
		}
	}
	if err := rdb.Set(ctx, "text", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := NewRedis(rdb, "").Refund(ctx, Result{Limit: limit, Taken: true}, of(limit, "text").Buckets); err != nil {
		t.Errorf("refund: %v", err)
	}
}

func TestRedisScriptCacheFlushed(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	s := NewRedis(rdb, "")
	limit := Limit{Capacity: 2, Interval: time.Hour}
	for i := range 2 {
		if r, err := s.Take(t.Context(), of(limit, "a")); err != nil || !r.Taken {
			t.Fatalf("take %d: %+v, %v", i, r, err)
		}
		if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Take(t.Context(), of(limit, "a")); err != nil || r.Taken {
		t.Errorf("third take of two: %+v, %v", r, err)
	}
}

// debt is what a bucket owes now.
func (m *Memory) debt(key string) time.Duration {
	return max(0, m.buckets.find(m.buckets.id(key)).fullAt-m.now())
}

// TestMemoryOfAMillionCallers: a million callers with an address and a user have buckets
// of their own. A flood of more of them needs no more memory, and refills no bucket.
func TestMemoryOfAMillionCallers(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	m := NewMemory()
	limit := Limit{Capacity: 2, Interval: time.Hour}
	victims := make([]string, 1000)
	for i := range victims {
		victims[i] = Key("run", fmt.Sprint("ip:victim", i))
		for range limit.Capacity {
			if r, err := m.Take(t.Context(), of(limit, victims[i])); err != nil || !r.Taken {
				t.Fatalf("a fresh caller: %+v, %v", r, err)
			}
		}
	}
	admitted := 0
	for i := range 1_300_000 {
		r, err := m.Take(t.Context(), of(limit, Key("run", fmt.Sprint("ip:", i)), Key("run", fmt.Sprint("user:", i))))
		if err != nil {
			t.Fatal(err)
		}
		if r.Taken {
			admitted++
		} else if i < 1_000_000 {
			t.Fatalf("caller %d shares a bucket: %+v", i, r)
		}
	}
	for _, v := range victims {
		if r, err := m.Take(t.Context(), of(limit, v)); err != nil || r.Taken {
			t.Fatalf("the flood refilled a bucket: %+v, %v", r, err)
		}
	}
	if m.buckets.used > maxBuckets+1 || admitted > maxBuckets/2+int(limit.Capacity)+1 {
		t.Errorf("%d buckets, %d strangers admitted; there is room for %d", m.buckets.used, admitted, maxBuckets)
	}
	const most = MemoryBytes + 1<<20
	used := heap() - before
	t.Logf("%d buckets in %.1f MB", m.buckets.used, float64(used)/1e6)
	if used > most {
		t.Errorf("%d bytes used, want at most %d", used, most)
	}
	runtime.KeepAlive(m)
}

// TestMemoryIsBounded fills a store with buckets that must not be forgotten.
func TestMemoryIsBounded(t *testing.T) {
	ctx := context.Background()
	m := NewMemoryOf(100)
	limit := Limit{Capacity: 2, Interval: time.Hour}
	take := func(keys ...string) bool {
		r, err := m.Take(ctx, of(limit, keys...))
		if err != nil {
			t.Fatal(err)
		}
		return r.Taken
	}
	for take("victim") {
	}
	admitted := 0
	for i := range 10_000 {
		if take(fmt.Sprint("ip", i), fmt.Sprint("user", i)) {
			admitted++
		}
	}
	if m.buckets.used > m.max+1 { // and the shared bucket
		t.Errorf("%d buckets kept, want at most %d", m.buckets.used, m.max+1)
	}
	if admitted > m.max/2+int(limit.Capacity)+1 {
		t.Errorf("%d strangers admitted: those without a place must share one bucket", admitted)
	}
	if take("victim") {
		t.Error("filling the store refilled a bucket")
	}
	// Once the buckets are full again they make room.
	m.start = m.start.Add(-3 * time.Hour)
	for i := range 200 {
		take("new", fmt.Sprint("other", i))
	}
	if m.buckets.used > m.max {
		t.Errorf("%d buckets kept after all were full again", m.buckets.used)
	}
}

// TestMemoryIsFull: as many callers as there is room for have buckets of their own.
func TestMemoryIsFull(t *testing.T) {
	m := NewMemoryOf(10)
	limit := Limit{Capacity: 1, Interval: time.Hour}
	for i := range 12 {
		r, err := m.Take(t.Context(), of(limit, fmt.Sprint("ip", i)))
		if err != nil || r.Taken != (i <= 10) { // the eleventh has the shared bucket
			t.Errorf("caller %d: %+v, %v", i, r, err)
		}
		if want := min(i+1, 11); m.buckets.used != want {
			t.Errorf("%d buckets after %d callers, want %d", m.buckets.used, i+1, want)
		}
	}
}

// TestMemorySharesByLimit: callers without room share a bucket with those of the same limit
// only. In a bucket of two limits, the one with the shorter span would fill that of the
// other. Both intervals are multiples of a large power of two.
func TestMemorySharesByLimit(t *testing.T) {
	m := NewMemoryOf(0)
	slow, fast := Limit{Capacity: 2, Interval: 1 << 50}, Limit{Capacity: 1, Interval: 1 << 40}
	take := func(l Limit, key string) bool {
		t.Helper()
		r, err := m.Take(t.Context(), of(l, key))
		if err != nil {
			t.Fatal(err)
		}
		return r.Taken
	}
	for i := range 2 {
		if !take(slow, fmt.Sprint("slow", i)) {
			t.Fatal("the shared bucket of a limit was not full")
		}
	}
	if !take(fast, "fast") {
		t.Error("another limit has no bucket of its own")
	}
	if take(slow, "slow") {
		t.Error("a caller of another limit has filled the shared bucket")
	}
}

// TestMemoryNamesTheBucket: while there is no room, the result still names the bucket of the request that is empty, and a
// bucket that stands for two of them is charged once.
func TestMemoryNamesTheBucket(t *testing.T) {
	m := NewMemoryOf(0)
	wide, narrow := Limit{Capacity: 4, Interval: time.Hour}, Limit{Capacity: 2, Interval: 24 * time.Hour}
	req := Request{Buckets: []Bucket{{Key: "ip", Limit: wide}, {Key: "user", Limit: wide}, {Key: "day", Limit: narrow}}}
	for i, taken := range []bool{true, true, false} {
		r, err := m.Take(t.Context(), req)
		if err != nil || r.Taken != taken || r.Bucket != 2 || r.Limit != narrow {
			t.Fatalf("take %d: %+v, %v; want that of the last bucket", i, r, err)
		}
	}
	r, err := m.Take(t.Context(), Request{Buckets: req.Buckets[:2]})
	if err != nil || !r.Taken || r.Remaining() != 1 {
		t.Errorf("%+v, %v; want 1 token left after three takes", r, err)
	}
	if err := m.Refund(t.Context(), r, req.Buckets[:2]); err != nil {
		t.Fatal(err)
	}
	if r, _ := m.Take(t.Context(), Request{Buckets: req.Buckets[:1]}); r.Remaining() != 1 {
		t.Errorf("%+v: a refund put back %d tokens, want 1", r, r.Remaining())
	}
}

// TestMemorySweep: full buckets are forgotten a few at a time, and so quickly that Takes
// don't add more.
func TestMemorySweep(t *testing.T) {
	m := NewMemoryOf(2000)
	limit := Limit{Capacity: 1, Interval: time.Hour}
	take := func(keys ...string) {
		t.Helper()
		if _, err := m.Take(t.Context(), of(limit, keys...)); err != nil {
			t.Fatal(err)
		}
	}
	const before = 1000
	for i := range before {
		take(fmt.Sprint("old", i))
	}
	m.start = m.start.Add(-2 * time.Hour)
	take("ip", "user")
	if n := m.buckets.used; n >= before+2 || n < before+2-sweepStep {
		t.Errorf("%d buckets after the first Take of %d: a few should be forgotten, %d at most", n, before, sweepStep)
	}
	for i := range 200 {
		take(fmt.Sprint("ip", i), fmt.Sprint("user", i))
	}
	if n := m.buckets.used; n > 2*201+before/2 {
		t.Errorf("%d buckets after 201 Takes with 2 new ones each: most of the old %d should be gone", n, before)
	}
}
