package quota

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// scanStep is about how many keys one call looks at. It bounds for how long a call holds
// Redis, however many buckets there are: to well under a millisecond.
const scanStep = 50

// Owing is a bucket that is not full.
type Owing struct {
	// Bucket and Subject are what [Key] made the key of: a policy ("run") or a bucket of it
	// ("run/mine"), and a caller ("ip:192.0.2.1").
	Bucket, Subject string
	// Debt is the time until the bucket is full.
	Debt time.Duration
}

// Scan calls see for each bucket that owes something, in no order. It reads all keys of the
// database in small steps. A bucket that changes meanwhile may come twice.
func (s *Redis) Scan(ctx context.Context, see func(Owing)) error {
	rdb, ok := s.rdb.(redis.Cmdable)
	if !ok {
		return fmt.Errorf("the client %T can't scan", s.rdb)
	}
	return scan(ctx, rdb, see)
}

// Scan is the same, for one server of the cluster after the other.
func (c *Cluster) Scan(ctx context.Context, see func(Owing)) error {
	cluster, ok := c.topology.(*redis.ClusterClient)
	if !ok {
		return fmt.Errorf("the client %T can't scan", c.topology)
	}
	var mu sync.Mutex // ForEachMaster calls for all at the same time
	var masters []*redis.Client
	err := cluster.ForEachMaster(ctx, func(_ context.Context, server *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		masters = append(masters, server)
		return nil
	})
	if err != nil {
		return fmt.Errorf("find the cluster's servers: %w", err)
	}
	for _, server := range masters {
		if err := scan(ctx, server, see); err != nil {
			return err
		}
	}
	return nil
}

func scan(ctx context.Context, rdb redis.Cmdable, see func(Owing)) error {
	prefix := Key("", "")
	prefix = prefix[:len(prefix)-1] // without the colon before the subject
	cursor := uint64(0)
	for {
		keys, next, err := rdb.Scan(ctx, cursor, prefix+"*", scanStep).Result()
		if err != nil {
			return fmt.Errorf("look for buckets: %w", err)
		}
		if err := owing(ctx, rdb, prefix, keys, see); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// owing reads buckets of one server in one round trip.
func owing(ctx context.Context, rdb redis.Cmdable, prefix string, keys []string, see func(Owing)) error {
	if len(keys) == 0 {
		return nil
	}
	values := make([]*redis.StringCmd, len(keys))
	var now *redis.TimeCmd
	_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		now = p.Time(ctx)
		for i, key := range keys { // one by one: in a cluster, their slots differ
			values[i] = p.Get(ctx, key)
		}
		return nil
	}) // each call has its own error
	if err := now.Err(); err != nil {
		return fmt.Errorf("read buckets: %w", err)
	}
	for i, key := range keys {
		switch err := values[i].Err(); {
		case errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "WRONGTYPE"): // it has expired since, or is no bucket
			continue
		case err != nil:
			return fmt.Errorf("read buckets: %w", err)
		}
		bucket, subject, ok := strings.Cut(strings.TrimPrefix(key, prefix), ":")
		if debt := debtOf(values[i].Val(), now.Val()); ok && debt > 0 {
			see(Owing{bucket, subject, debt})
		}
	}
	return nil
}
