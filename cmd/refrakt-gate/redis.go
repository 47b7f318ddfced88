package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// newRedis returns a client for u, which was validated. It never retries: a
// command whose answer was lost may have been carried out, and a token taken
// twice. Waiting is bounded by the contexts of the callers.
func newRedis(u string) (*redis.Client, error) {
	opts, err := redis.ParseURL(u)
	if err != nil {
		return nil, errors.New("parse the Redis URL: not valid") // the cause may quote a password
	}
	opts.MaxRetries = -1
	opts.ContextTimeoutEnabled = true
	opts.DialTimeout = time.Second
	opts.DialerRetries = 1
	opts.ClientName = "refrakt-gate"
	// A feature of hosted Redis that costs a round trip on each connection.
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(opts), nil
}

// redisLog brings the client's own log lines into ours, at debug: what they
// report is seen where it happens.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
	}
}
