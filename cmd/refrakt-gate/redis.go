package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisURL is a parsed URL of Redis: one of its fields is set.
type redisURL struct {
	server   *redis.Options
	sentinel *redis.FailoverOptions
	cluster  *redis.ClusterOptions
}

const (
	clientName = "refrakt-gate"
	// dialTimeout bounds one try to connect; how long a request waits is bounded by
	// its context.
	dialTimeout = time.Second
	// topologyTimeout bounds the wait for what a cluster's server says of the cluster,
	// which has no request's context: one that hangs must not keep the gate from
	// learning that a replica has taken over.
	topologyTimeout = 500 * time.Millisecond
)

// errNotRedis never quotes the value: it may hold a password.
var errNotRedis = errors.New("not a Redis URL (redis://, rediss:// or unix://, see the README)")

// parseRedis reads a URL as the client library does, whose forms differ by their
// parameters: one with master_name is Sentinel's, another that names more servers
// with addr is a cluster's. No client retries: a command whose answer was lost may
// have been carried out, and a token taken twice.
func parseRedis(u string) (redisURL, error) {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Opaque != "" { // redis:host, without //
		return redisURL{}, errNotRedis
	}
	// Which form it is must not depend on parameters that can't be read, as a;b can't.
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return redisURL{}, errNotRedis
	}
	// A feature of hosted Redis that costs a round trip on each connection.
	noNotifications := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch {
	case query.Has("master_name"):
		o, err := redis.ParseFailoverURL(u)
		if err != nil || o.MasterName == "" || o.RouteByLatency || o.RouteRandomly || o.ReplicaOnly {
			return redisURL{}, errNotRedis
		}
		o.MaxRetries, o.ContextTimeoutEnabled = -1, true
		o.DialTimeout, o.DialerRetries = dialTimeout, 1
		o.ClientName = clientName
		return redisURL{sentinel: o}, nil
	case query.Has("addr"):
		o, err := redis.ParseClusterURL(u)
		if err != nil || o.ReadOnly || o.RouteByLatency || o.RouteRandomly || strings.Trim(parsed.Path, "/0") != "" {
			return redisURL{}, errNotRedis // a path names a database; a cluster has one only
		}
		o.MaxRetries, o.MaxRedirects, o.ContextTimeoutEnabled = -1, -1, true
		o.DialTimeout, o.DialerRetries = dialTimeout, 1
		o.ClientName, o.MaintNotificationsConfig = clientName, noNotifications
		return redisURL{cluster: o}, nil
	default:
		o, err := redis.ParseURL(u)
		if err != nil {
			return redisURL{}, errNotRedis
		}
		o.MaxRetries, o.ContextTimeoutEnabled = -1, true
		o.DialTimeout, o.DialerRetries = dialTimeout, 1
		o.ClientName, o.MaintNotificationsConfig = clientName, noNotifications
		return redisURL{server: o}, nil
	}
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
