package quota

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Peeker tells what buckets owe, without taking a token from any.
type Peeker interface {
	// Peek returns the debt of each bucket: the time until it is full, from 0 to the most that
	// it can owe.
	Peek(ctx context.Context, buckets []Bucket) ([]time.Duration, error)
}

var (
	_ Peeker = (*Redis)(nil)
	_ Peeker = (*Cluster)(nil)
)

// Peek implements [Peeker] in one round trip. It writes nothing.
func (s *Redis) Peek(ctx context.Context, buckets []Bucket) ([]time.Duration, error) {
	keys := make([]string, len(buckets))
	for i, b := range buckets {
		keys[i] = b.Key
	}
	var now *redis.TimeCmd
	var values *redis.SliceCmd
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		now, values = p.Time(ctx), p.MGet(ctx, keys...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read buckets: %w", err)
	}
	debts := make([]time.Duration, len(buckets))
	for i, b := range buckets {
		text, _ := values.Val()[i].(string) // nil: the bucket is full
		debts[i] = min(debtOf(text, now.Val()), b.maxDebt())
	}
	return debts, nil
}

// debtOf is the debt of a bucket with this value; take.lua says what a value means.
func debtOf(value string, now time.Time) time.Duration {
	digits := len(value) - 9
	if digits < 1 {
		return 0
	}
	s, errS := strconv.ParseInt(value[:digits], 10, 64)
	ns, errNS := strconv.ParseInt(value[digits:], 10, 64)
	if errS != nil || errNS != nil {
		return 0
	}
	return max(0, time.Unix(s, ns).Sub(now)-time.Millisecond)
}

// Peek implements [Peeker] in one round trip for each bucket.
func (c *Cluster) Peek(ctx context.Context, buckets []Bucket) ([]time.Duration, error) {
	debts := make([]time.Duration, len(buckets))
	for i, b := range buckets {
		client, err := c.topology.MasterForKey(ctx, b.Key)
		if err != nil {
			return nil, fmt.Errorf("find the cluster's server of a bucket: %w", err)
		}
		one, err := newClusterServer(client).Peek(ctx, buckets[i:i+1])
		if err != nil {
			return nil, err
		}
		debts[i] = one[0]
	}
	return debts, nil
}

// Dry is a store that answers as if it took tokens, and takes none.
type Dry struct{ Buckets Peeker }

var _ Store = Dry{}

// Take returns what a Take of the store would return now. It gives no places.
func (d Dry) Take(ctx context.Context, req Request) (Result, error) {
	debts, err := d.Buckets.Peek(ctx, req.Buckets)
	if err != nil {
		return Result{}, err
	}
	e := emptiest{enough: true}
	for i, b := range req.Buckets {
		e.look(i, b.Limit, debts[i])
	}
	r := Result{Taken: e.enough, Bucket: e.bucket, Limit: req.Buckets[e.bucket].Limit, Debt: e.debt}
	if r.Taken {
		r.Debt += r.Limit.Interval
	}
	return r, nil
}

// Refund does nothing, for nothing was taken.
func (Dry) Refund(context.Context, Result, []Bucket) error { return nil }

// Forget fills buckets: what they owe is forgotten. A gate that has just refused a caller
// goes on to refuse it for up to a second; see [Failover].
func (s *Redis) Forget(ctx context.Context, keys []string) error {
	args := []any{"del"}
	for _, k := range keys {
		args = append(args, k)
	}
	if err := s.rdb.Process(ctx, redis.NewIntCmd(ctx, args...)); err != nil {
		return fmt.Errorf("fill buckets: %w", err)
	}
	return nil
}

// Forget is the same, with a call for each bucket.
func (c *Cluster) Forget(ctx context.Context, keys []string) error {
	for _, key := range keys {
		client, err := c.topology.MasterForKey(ctx, key)
		if err != nil {
			return fmt.Errorf("find the cluster's server of a bucket: %w", err)
		}
		if err := newClusterServer(client).Forget(ctx, []string{key}); err != nil {
			return err
		}
	}
	return nil
}
