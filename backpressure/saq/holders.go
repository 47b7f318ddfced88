package saq

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Holder is a caller with jobs that wait or are on their way.
type Holder struct {
	Caller string // as in [backpressure.Place]
	Places int64
}

// Holders returns the callers that have most places in the queue, the most first; n at
// most. Only a queue with a fair share knows whose its jobs are. A count can be too high
// by jobs that workers have taken since the last admission; shares.lua says what else errs.
func (q *Queue) Holders(ctx context.Context, rdb redis.Cmdable, n int) ([]Holder, error) {
	counts, err := rdb.ZRevRangeWithScores(ctx, q.sharesKey(), 0, int64(n)-1).Result()
	if err != nil {
		return nil, fmt.Errorf("read whose the jobs are: %w", err)
	}
	holders := make([]Holder, len(counts))
	for i, c := range counts {
		holders[i] = Holder{fmt.Sprint(c.Member), int64(c.Score)}
	}
	return holders, nil
}
