package quota

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
)

//go:embed take.lua
var takeLua string

//go:embed refund.lua
var refundLua string

var refundScript = redis.NewScript(refundLua)

// Client is what the store needs of a Redis client. The client must not retry: Redis may
// have carried out a Take whose answer was lost.
type Client interface {
	redis.Scripter
	Process(ctx context.Context, cmd redis.Cmder) error
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

// Redis keeps the buckets in Redis, where all replicas share them. The scripts read
// the server's clock, so the replicas' clocks don't matter. Takes that come while a call
// is under way share the next one; see [batcher].
type Redis struct {
	rdb    Client
	script *redis.Script
	lua    string // defines places for take.lua
	// apart says that each request needs a call of its own: its keys may be in another
	// slot of a cluster.
	apart       bool
	givesPlaces bool

	batcher batcher
	do      func(context.Context, func(context.Context) error) error // makes each call
	args    []any                                                    // of the call under way; its memory is used again
}

var (
	_ Store   = (*Redis)(nil)
	_ sharing = (*Redis)(nil)
)

// NewRedis returns a store on rdb. places is the Lua that defines places, as take.lua needs
// it: with it, a Take can also ask for a place in a queue in the same Redis.
func NewRedis(rdb Client, places string) *Redis {
	s := &Redis{rdb: rdb, lua: cmp.Or(places, "local places = nil\n"), givesPlaces: places != ""}
	s.script = redis.NewScript(s.lua + takeLua)
	s.batcher.send = s.send
	s.do = func(ctx context.Context, call func(context.Context) error) error { return call(ctx) }
	return s
}

func (s *Redis) guardCalls(do func(context.Context, func(context.Context) error) error) { s.do = do }

func (s *Redis) takeAlone(ctx context.Context, req Request) (Result, error) {
	req.Place = Place{}
	m := &member{req: req}
	_ = s.sendTogether(ctx, s.evalsha(nil, []*member{m}), []*member{m})
	return m.result, m.err
}

// newClusterServer returns a store on one server of a cluster.
func newClusterServer(rdb Client) *Redis {
	s := NewRedis(rdb, "")
	s.apart = true
	return s
}

// mayRefund says whether tokens of such a request, or of another one with the same
// buckets, can come back: if it has to ask for its place after it has its tokens.
func (s *Redis) mayRefund(req Request) bool { return req.Place.Mode != PlaceNone && !s.givesPlaces }

// Take implements [Store] in one round trip, which it may share with others.
func (s *Redis) Take(ctx context.Context, req Request) (Result, error) {
	if !s.givesPlaces {
		req.Place = Place{}
	}
	return s.batcher.take(ctx, req)
}

// send makes one call for a batch, or one pipeline of calls.
func (s *Redis) send(ctx context.Context, batch []*member) {
	err := s.do(ctx, func(ctx context.Context) error {
		if s.apart && len(batch) > 1 {
			return s.sendApart(ctx, batch)
		}
		s.args = s.evalsha(s.args[:0], batch)
		defer clear(s.args)
		return s.sendTogether(ctx, s.args, batch)
	})
	if errors.Is(err, breaker.ErrOpen) { // nobody was asked
		fail(batch, err)
	}
}

// sendTogether makes one call for a batch, and sets the outcome of each member.
func (s *Redis) sendTogether(ctx context.Context, args []any, batch []*member) (err error) {
	defer func() { fail(batch, err) }()
	cmd := redis.NewIntSliceCmd(ctx, args...)
	err = s.rdb.Process(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // then nothing was done
		cmd = redis.NewIntSliceCmd(ctx, s.appendArgs(nil, "eval", s.lua+takeLua, batch)...)
		err = s.rdb.Process(ctx, cmd)
	}
	if err != nil {
		return err
	}
	return readAnswer(cmd.Val(), batch)
}

// sendApart makes one call for each member, in one pipeline, and sets the outcome of each.
// It returns the error that tells most of the server.
func (s *Redis) sendApart(ctx context.Context, batch []*member) error {
	cmds := make([]*redis.IntSliceCmd, len(batch))
	for i := range batch {
		cmds[i] = redis.NewIntSliceCmd(ctx, s.evalsha(nil, batch[i:i+1])...)
	}
	_, _ = s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error { // each call has its own error
		for _, cmd := range cmds {
			_ = p.Process(ctx, cmd)
		}
		return nil
	})
	var worst error
	for i, cmd := range cmds {
		one := batch[i : i+1]
		err := cmd.Err()
		switch {
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			err = s.sendTogether(ctx, s.evalsha(nil, one), one)
		case err == nil:
			err = readAnswer(cmd.Val(), one)
			fail(one, err)
		default:
			fail(one, err)
		}
		if worst == nil || err != nil && !blameless(err) {
			worst = err
		}
	}
	return worst
}

// fail gives all members an error, unless it is nil.
func fail(batch []*member, err error) {
	if err == nil {
		return
	}
	err = fmt.Errorf("take tokens: %w", err)
	for _, m := range batch {
		m.err = err
	}
}

// Refund implements [Store] in one round trip.
func (s *Redis) Refund(ctx context.Context, _ Result, buckets []Bucket) error {
	keys, intervals := make([]string, len(buckets)), make([]any, len(buckets))
	for i, b := range buckets {
		keys[i], intervals[i] = b.Key, b.Limit.Interval.Nanoseconds()
	}
	if err := refundScript.Run(ctx, s.rdb, keys, intervals...).Err(); err != nil {
		return fmt.Errorf("refund tokens: %w", err)
	}
	return nil
}
