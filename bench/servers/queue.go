package servers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The keys of SAQ's queue.
const (
	jobPrefix  = "saq:job:default:"
	incomplete = "saq:default:incomplete"
	queued     = "saq:default:queued"
)

// FillQueue adds the waiting jobs from one number to before another to SAQ's queue, each with a payload of about size
// bytes.
func (r *Redis) FillQueue(ctx context.Context, from, to, size int) error {
	const each, overhead = 200, 230
	pad := strings.Repeat("lorem ipsum ", size/12+1)[:max(0, size-overhead)]
	for ; from < to; from += each {
		_, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := from; i < min(to, from+each); i++ {
				key := fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
				now := time.Now().UnixMilli()
				p.Set(ctx, jobPrefix+key, fmt.Sprintf(`{"function":"train","kwargs":{"source":"api","seconds":1.0,"text":"%s"},`+
					`"queue":"default","key":"%s","timeout":3600,"retries":1,"ttl":600,"queued":%d,"status":"queued"}`, pad, key, now), 0)
				p.ZAdd(ctx, incomplete, redis.Z{Score: float64(now), Member: jobPrefix + key})
				p.RPush(ctx, queued, jobPrefix+key)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("fill the queue: %w", err)
		}
	}
	return nil
}

// FillShares has the gate's keys say of n jobs whose they are, callers by turns.
func (r *Redis) FillShares(ctx context.Context, n, callers int) error {
	const order, counts = "refrakt:gate:order:default", "refrakt:gate:shares:default"
	_, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range n {
			caller := fmt.Sprint("ip:192.0.2.", i%callers)
			p.RPush(ctx, order, caller)
			p.ZIncrBy(ctx, counts, 1, caller)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("fill the shares of the queue: %w", err)
	}
	return nil
}

// TurnQueue takes a job from the head of the queue and puts it at its tail, rate times a second, as workers and new
// jobs do, until ctx ends.
func (r *Redis) TurnQueue(ctx context.Context, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = r.LMove(ctx, queued, queued, "LEFT", "RIGHT").Err() // nothing happens if it is empty
		}
	}
}
