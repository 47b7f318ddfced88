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

//go:embed refund.lua
var refundLua string

var (
	takeScript   = redis.NewScript(takeLua)
	refundScript = redis.NewScript(refundLua)
)

// Redis keeps the buckets in Redis, where all replicas share them. The scripts read
// the server's clock, so the replicas' clocks don't matter.
type Redis struct{ rdb redis.Scripter }

var _ Store = (*Redis)(nil)

// NewRedis returns a store on rdb. The client must not retry: Redis may have
// carried out a Take whose answer was lost.
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

// Refund implements [Store] in one round trip.
func (s *Redis) Refund(ctx context.Context, r Result, keys ...string) error {
	if err := refundScript.Run(ctx, s.rdb, keys, r.Limit.Interval.Microseconds()).Err(); err != nil {
		return fmt.Errorf("refund tokens: %w", err)
	}
	return nil
}
