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

const (
	// clientName is how Redis lists the gate's connections.
	clientName = "refrakt-gate"
	// dialTimeout bounds one try to connect; how long a request waits is bounded by
	// its context.
	dialTimeout = time.Second
	// topologyTimeout bounds the wait for what a cluster's server says of the cluster,
	// which has no request's context: one that hangs must not keep the gate from
	// learning that a replica has taken over.
	topologyTimeout = 500 * time.Millisecond
)

// What the gate decides about its clients, whatever the URL says: no client retries,
// for a command whose answer was lost may have been carried out, and a token taken
// twice.

func bindServer(o *redis.Options) {
	o.MaxRetries, o.ContextTimeoutEnabled = -1, true
	o.DialTimeout, o.DialerRetries = shorterDial(o.DialTimeout), 1
	o.ClientName, o.DisableIdentity, o.MaintNotificationsConfig = clientName, true, noNotifications()
}

func bindSentinel(o *redis.FailoverOptions) {
	o.MaxRetries, o.ContextTimeoutEnabled = -1, true
	o.DialTimeout, o.DialerRetries = shorterDial(o.DialTimeout), 1
	o.ClientName, o.DisableIdentity = clientName, true
}

func bindCluster(o *redis.ClusterOptions) {
	o.MaxRetries, o.MaxRedirects, o.ContextTimeoutEnabled = -1, -1, true
	o.DialTimeout, o.DialerRetries = shorterDial(o.DialTimeout), 1
	o.ClientName, o.DisableIdentity, o.MaintNotificationsConfig = clientName, true, noNotifications()
}

func shorterDial(asked time.Duration) time.Duration {
	if asked > 0 && asked < dialTimeout {
		return asked
	}
	return dialTimeout
}

// noNotifications switches off a feature of hosted Redis that costs a round trip on
// each connection.
func noNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// client returns a client for u, which is not a cluster's.
func (u redisURL) client() *redis.Client {
	if u.sentinel != nil {
		return redis.NewFailoverClient(u.sentinel)
	}
	return redis.NewClient(u.server)
}

// validRedisURL checks a setting that may be empty.
func validRedisURL(u string) error {
	if u == "" {
		return nil
	}
	_, err := parseRedis(u)
	return err
}

// validQueueURL is the same for the queue's.
func validQueueURL(u string) error {
	if u == "" {
		return nil
	}
	parsed, err := parseRedis(u)
	if err == nil && parsed.cluster != nil {
		return errors.New("a Redis Cluster can't hold SAQ's queue: its keys have no hash tag (RATE_LIMIT_REDIS_URL may be one)")
	}
	return err
}

// redisLog brings the client's own log lines into ours, at debug: what they
// report is seen where it happens.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
	}
}
