package backpressure

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed heads.lua
var headsSource string

//go:embed marks.lua
var marksSource string

// headLimit bounds the payloads read per sample. More than one, since a job's
// payload may have been deleted or have expired while its id still waits.
const headLimit = 16

// reading is what one look at the queue tells.
type reading struct {
	pending  int64         // jobs waiting
	running  int64         // jobs taken by workers
	workers  int64         // workers alive
	age      time.Duration // since the oldest waiting job became runnable; 0 when nothing waits
	ageKnown bool
	left     int64 // jobs that left the list since the look before, see marks.lua
	exact    bool  // otherwise more may have left
	marks    marks // for the next look
	admitted int64 // jobs, by all replicas; begins anew where none were for a while
}

// marks are jobs by which the next look finds out how many have left meanwhile, as
// marks.lua returns and takes them.
type marks []any

// readQueue looks at the queue in one round trip whose cost doesn't depend on
// the queue's length. It is no transaction: in one, a Redis that is out of memory
// refuses the scripts, though they only read. The marks are those of the look
// before, nil if there was none.
func readQueue(ctx context.Context, rdb Redis, queue string, before marks) (reading, error) {
	var (
		now                      *redis.TimeCmd
		pending, active, workers *redis.IntCmd
		left, heads              *redis.Cmd
		admitted                 *redis.SliceCmd
	)
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		now = p.Time(ctx)
		pending = p.LLen(ctx, queuedKey(queue))
		active = p.LLen(ctx, activeKey(queue))
		// With the local clock, as SAQ's own count does.
		workers = p.ZCount(ctx, statsKey(queue), strconv.FormatInt(time.Now().UnixMilli(), 10), "+inf")
		admitted = p.HMGet(ctx, windowKey(queue), "admitted")
		// Scripts are sent whole: in a pipeline a hash that Redis does not know is an
		// error.
		left = p.Eval(ctx, marksSource, []string{queuedKey(queue)}, before...)
		// This one follows the ids to their payloads within the same round trip.
		heads = p.Eval(ctx, headsSource, []string{queuedKey(queue)}, headLimit)
		return nil
	})
	if err != nil {
		return reading{}, fmt.Errorf("read queue keys: %w", err)
	}
	r := reading{pending: pending.Val(), running: active.Val(), workers: workers.Val()}
	if text, ok := admitted.Val()[0].(string); ok {
		r.admitted, _ = strconv.ParseInt(text, 10, 64)
	}
	if m, _ := left.Val().([]any); len(m) >= 2 {
		r.left, _ = m[0].(int64)
		r.exact = m[1] == int64(1)
		r.marks = m[2:]
	}
	payloads, _ := heads.Val().([]any)
	if len(payloads) == 0 {
		// The list has no heads: a worker took the last job since it was counted.
		r.pending = 0
	}
	r.age, r.ageKnown = oldestAge(r.pending, payloads, now.Val().UnixMilli())
	return r, nil
}

// oldestAge is the age of the first head with a usable payload. Without one it
// is unknown, not zero, unless nothing waits.
func oldestAge(pending int64, heads []any, nowMillis int64) (age time.Duration, known bool) {
	if pending == 0 {
		return 0, true
	}
	for _, head := range heads {
		payload, _ := head.(string) // nil for a missing payload
		if since, ok := runnableSince(payload); ok {
			// Workers' clocks may be ahead of Redis's.
			millis := max(0, nowMillis-int64(min(since, float64(nowMillis))))
			return time.Duration(millis) * time.Millisecond, true
		}
	}
	return 0, false
}
