// Package saq is the only place that knows what SAQ keeps in Redis: its keys, its
// payloads, its statuses, and what may be read of them at what cost. It is written
// against SAQ 0.26 (saq/queue/redis.py). A [Queue] is the queue of package
// backpressure and of package jobmetrics.
package saq

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
)

// Redis is what the package needs of a client. The client must not retry by itself:
// a repeated admission would count twice.
type Redis interface {
	redis.Scripter
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
	ZScan(ctx context.Context, key string, cursor uint64, match string, count int64) *redis.ScanCmd
	Scan(ctx context.Context, cursor uint64, match string, count int64) *redis.ScanCmd
	ZRevRangeWithScores(ctx context.Context, key string, start, stop int64) *redis.ZSliceCmd
	PSubscribe(ctx context.Context, patterns ...string) *redis.PubSub
}

var _ Redis = redis.UniversalClient(nil)

// Queue is one SAQ queue.
type Queue struct {
	rdb  Redis
	name string
	json string // the name as a JSON string, as payloads have it
}

var _ backpressure.Queue = (*Queue)(nil)

// New returns the queue with this name in rdb.
func New(name string, rdb Redis) *Queue {
	return &Queue{rdb: rdb, name: name, json: jsonString(name)}
}

// jsonString is s as Python's json module writes it: in ASCII.
func jsonString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	b.WriteByte('"')
	return b.String()
}

// age is how long ago a time in ms was, by Redis's clock. Workers' clocks may be
// ahead of it.
func age(now time.Time, millis int64) time.Duration {
	return max(0, now.Sub(time.UnixMilli(millis)))
}
