package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// inspection is what the commands for operators read: the policies in force, and the
// buckets in Redis. It has the settings of a gate, and its own connection.
type inspection struct {
	cfg        Config
	set        *policy.Set
	buckets    inspected
	queueRedis *redis.Client // nil: no queue
	close      func()
}

// inspected is a shared store of buckets, as operators use it.
type inspected interface {
	quota.Store
	quota.Peeker
	Forget(ctx context.Context, keys []string) error
	Scan(ctx context.Context, see func(quota.Owing)) error
}

// inspectTimeout bounds all that one command asks Redis.
const inspectTimeout = 10 * time.Second

// inspect opens what a gate with the settings of environ decides by. Call close.
func inspect(environ map[string]string) (*inspection, error) {
	cfg, errs := loadConfig(environ)
	if len(errs) > 0 {
		return nil, badSettings(errs)
	}
	if cfg.limiterURL() == "" {
		return nil, exit{exitUsage, errors.New("QUEUE_URL and RATE_LIMIT_REDIS_URL are not set: the buckets of such a gate are in its memory, where no command can read them")}
	}
	g := &gate{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	redis.SetLogger(redisLog{g.log})
	if cfg.QueueURL != "" {
		u, err := parseRedis(cfg.QueueURL)
		if err != nil {
			return nil, exit{exitUsage, fmt.Errorf("parse QUEUE_URL: %w", err)}
		}
		g.queueRedis = u.client()
	}
	store, err := g.limiterStore()
	if err != nil {
		return nil, exit{exitUsage, err}
	}
	return &inspection{cfg: cfg, set: policy.Compile(cfg.policies), buckets: store.(inspected), queueRedis: g.queueRedis, close: g.closeRedis}, nil
}
