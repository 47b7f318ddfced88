package saq

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

//go:embed payload.lua
var payloadLua string

//go:embed oldest.lua
var oldestLua string

//go:embed cursor.lua
var cursorLua string

// oldestTried is how many of the longest waiting jobs are tried: a payload may be
// gone, or may have expired, while its id still waits.
const oldestTried = 16

// Sample implements [backpressure.Queue] in one round trip. It is no transaction: in
// one, a Redis that is out of memory refuses scripts, though these only read.
func (q *Queue) Sample(ctx context.Context, since backpressure.Cursor, shares bool) (backpressure.Sample, error) {
	var (
		now                      *redis.TimeCmd
		pending, active, workers *redis.IntCmd
		left, oldest             *redis.Cmd
		admitted                 *redis.SliceCmd
		largest                  *redis.ZSliceCmd
	)
	before, _ := since.([]any)
	_, err := q.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		now = p.Time(ctx)
		pending = p.LLen(ctx, q.queuedKey())
		active = p.LLen(ctx, q.activeKey())
		// With the local clock, as SAQ's own count does.
		workers = p.ZCount(ctx, q.statsKey(), strconv.FormatInt(time.Now().UnixMilli(), 10), "+inf")
		admitted = p.HMGet(ctx, q.windowKey(), "admitted")
		if shares {
			largest = p.ZRevRangeWithScores(ctx, q.sharesKey(), 0, 0)
		}
		// Scripts are sent whole: in a pipeline a hash that Redis does not know is an
		// error.
		left = p.Eval(ctx, cursorLua, []string{q.queuedKey()}, before...)
		oldest = p.Eval(ctx, payloadLua+oldestLua, []string{q.queuedKey()}, q.json, oldestTried)
		return nil
	})
	if err != nil {
		return backpressure.Sample{}, fmt.Errorf("read queue keys: %w", err)
	}
	s := backpressure.Sample{Pending: pending.Val(), Running: active.Val(), Workers: workers.Val()}
	if text, ok := admitted.Val()[0].(string); ok {
		s.Admitted, _ = strconv.ParseInt(text, 10, 64)
	}
	if m, _ := left.Val().([]any); len(m) >= 2 {
		s.Left, _ = m[0].(int64)
		s.LeftExact = m[1] == int64(1)
		s.Cursor = m[2:]
	}
	setAge(&s, oldest.Val(), now.Val())
	if largest != nil && len(largest.Val()) > 0 {
		// Some of these jobs may have left since somebody was admitted or refused.
		s.LargestShare = min(int64(largest.Val()[0].Score), s.Pending)
	}
	return s, nil
}

// setAge fills in the age of the oldest waiting job, as oldest.lua returned it. If no
// job could be read the age is unknown, which is not zero.
func setAge(s *backpressure.Sample, oldest any, now time.Time) {
	list, _ := oldest.([]any)
	if len(list) == 0 || list[0] == int64(0) {
		s.Pending = 0 // a worker took the last job since it was counted
	}
	if s.Pending == 0 {
		s.AgeKnown = true
		return
	}
	if f, ok := parseFields(list[1:]); ok {
		f.status = cmp.Or(f.status, string(job.Queued)) // the job waits, even if that could not be read
		s.OldestAge, s.AgeKnown = age(now, f.runnable()), true
	}
}
