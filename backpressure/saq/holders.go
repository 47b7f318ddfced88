package saq

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed held.lua
var heldLua string

var heldScript = redis.NewScript(payloadLua + sharesLua + admissionLua + heldLua)

// holdersStep is how many callers one call reads.
const holdersStep = 50

// Holder is a caller with jobs that wait or are on their way.
type Holder struct {
	Caller string // as in [backpressure.Place]
	Places int64
}

// Holders returns the callers that have most places in the queue, the most first; n at
// most. Only a queue with a fair share knows whose its jobs are. A count can be too high
// by jobs that workers have taken since the last admission; shares.lua says what else errs.
// A caller whose count changes meanwhile may come twice or be missing.
func (q *Queue) Holders(ctx context.Context, n int) ([]Holder, error) {
	var holders []Holder
	for from := 0; from < n; from += holdersStep {
		to := min(from+holdersStep, n)
		counts, err := q.rdb.ZRevRangeWithScores(ctx, q.sharesKey(), int64(from), int64(to-1)).Result()
		if err != nil {
			return nil, fmt.Errorf("read whose the jobs are: %w", err)
		}
		for _, c := range counts {
			holders = append(holders, Holder{fmt.Sprint(c.Member), int64(c.Score)})
		}
		if from+len(counts) < to {
			break
		}
	}
	return holders, nil
}

// Held returns how many jobs of the caller wait or are on their way, and how many jobs of
// all callers do, as Admit would count them now. Only a queue with a fair share knows whose
// its jobs are. window is that of Admit.
func (q *Queue) Held(ctx context.Context, caller string, window time.Duration) (held, pending int64, err error) {
	keys, args := q.Places(window)
	answer, err := heldScript.Run(ctx, q.rdb, keys, append(args, caller)...).Int64Slice()
	if err != nil {
		return 0, 0, fmt.Errorf("run held script: %w", err)
	}
	if len(answer) != 2 {
		return 0, 0, fmt.Errorf("read held answer: %d numbers instead of 2", len(answer))
	}
	return answer[0], answer[1], nil
}
