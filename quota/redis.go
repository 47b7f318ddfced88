package quota

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed take.lua
var takeLua string

//go:embed give.lua
var giveLua string

var (
	takeScript = redis.NewScript(takeLua)
	giveScript = redis.NewScript(giveLua)
)

// Redis keeps the buckets in Redis, where all replicas share them. Time is the
// server's, so the replicas' clocks do not matter.
type Redis struct{ rdb redis.Scripter }

var _ Store = (*Redis)(nil)

// NewRedis returns a store on rdb. The client must not retry: a Take whose
// answer was lost may have been carried out.
func NewRedis(rdb redis.Scripter) *Redis { return &Redis{rdb: rdb} }

// Take implements [Store] in one round trip.
func (s *Redis) Take(ctx context.Context, limit Limit, keys ...string) (Result, error) {
	answer, err := takeScript.Run(ctx, s.rdb, keys, limit.Interval.Microseconds(), limit.Span().Microseconds()).Int64Slice()
	if err != nil {
		return Result{}, fmt.Errorf("take tokens: %w", err)
	}
	if len(answer) != 2 {
		return Result{}, errors.New("take tokens: the script did not answer with two numbers")
	}
	return Result{
		Limit: limit,
		Taken: answer[0] == 1,
		Debt:  time.Duration(answer[1]) * time.Microsecond,
	}, nil
}

// Give implements [Store] in one round trip.
func (s *Redis) Give(ctx context.Context, r Result, keys ...string) error {
	if err := giveScript.Run(ctx, s.rdb, keys, r.Limit.Interval.Microseconds()).Err(); err != nil {
		return fmt.Errorf("give tokens back: %w", err)
	}
	return nil
}
