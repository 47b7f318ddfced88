package quota

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

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
	places Places
	// apart says that each request needs a call of its own: its keys may be in another
	// slot of a cluster.
	apart bool

	batcher batcher
	do      func(context.Context, func(context.Context) error) error // makes each call
	args    []any                                                    // of the call under way; its memory is used again
}

var (
	_ Store   = (*Redis)(nil)
	_ sharing = (*Redis)(nil)
)

// Places is how take.lua asks a queue in the same Redis for places. The zero value says
// that there is no queue.
type Places struct {
	// Lua defines queue, as take.lua needs it. Keys are the last of KEYS, and Args the last
	// of ARGV.
	Lua  string
	Keys []string
	Args []any
}

// NewRedis returns a store on rdb. With places, a Take can also ask for a place in the
// queue.
func NewRedis(rdb Client, places Places) *Redis {
	if places.Lua == "" {
		places.Lua = "local queue = nil\n"
	}
	s := &Redis{rdb: rdb, script: redis.NewScript(places.Lua + takeLua), places: places}
	s.batcher.send = s.send
	s.do = func(ctx context.Context, call func(context.Context) error) error { return call(ctx) }
	return s
}

func (s *Redis) guardCalls(do func(context.Context, func(context.Context) error) error) { s.do = do }

func (s *Redis) takeAlone(ctx context.Context, req Request) (Result, error) {
	req.Place = PlaceNone
	m := &member{req: req}
	_ = s.sendTogether(ctx, s.evalsha(nil, []*member{m}), []*member{m})
	return m.result, m.err
}

// newClusterServer returns a store on one server of a cluster.
func newClusterServer(rdb Client) *Redis {
	s := NewRedis(rdb, Places{})
	s.apart = true
	return s
}

func (s *Redis) givesPlaces() bool { return len(s.places.Keys) > 0 }

// mayRefund says whether tokens of such a request, or of another one with the same
// buckets, can come back: if it has to ask for its place after it has its tokens.
func (s *Redis) mayRefund(req Request) bool { return req.Place != PlaceNone && !s.givesPlaces() }

// Take implements [Store] in one round trip, which it may share with others.
func (s *Redis) Take(ctx context.Context, req Request) (Result, error) {
	if !s.givesPlaces() {
		req.Place = PlaceNone
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
		cmd = redis.NewIntSliceCmd(ctx, s.appendArgs(nil, "eval", s.places.Lua+takeLua, batch)...)
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

// evalsha appends the arguments of the command that runs take.lua for a batch.
func (s *Redis) evalsha(args []any, batch []*member) []any {
	return s.appendArgs(args, "evalsha", s.script.Hash(), batch)
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

// appendArgs appends the arguments of a command that runs take.lua for a batch.
func (s *Redis) appendArgs(args []any, command, script string, batch []*member) []any {
	args = append(args, command, script, 0)
	for _, m := range batch {
		for i := range m.req.Buckets {
			args = append(args, &m.req.Buckets[i].Key) // a pointer costs no allocation
		}
	}
	for i := range s.places.Keys {
		args = append(args, &s.places.Keys[i])
	}
	args[2] = len(args) - 3
	runs, at := 0, len(args)
	args = append(args, nil)
	for len(batch) > 0 {
		n := runOf(batch)
		args = appendRun(args, n, batch[0].req)
		runs, batch = runs+1, batch[n:]
	}
	args[at] = runs
	return append(args, s.places.Args...)
}

// runOf is how many requests, from the first on, have the same shape.
func runOf(batch []*member) int {
	first := &batch[0].req
	for i, m := range batch {
		if m.req.Recorded != first.Recorded || m.req.Place != first.Place || len(m.req.Buckets) != len(first.Buckets) {
			return i
		}
		for j := range first.Buckets {
			if b := m.req.Buckets[j]; b.Limit != first.Buckets[j].Limit || b.MaxDebt != first.Buckets[j].MaxDebt {
				return i
			}
		}
	}
	return len(batch)
}

func appendRun(args []any, n int, req Request) []any {
	enforced := 1
	if req.Recorded {
		enforced = 0
	}
	args = append(args, n, len(req.Buckets), enforced, int(req.Place))
	for _, b := range req.Buckets {
		args = append(args, b.Limit.Interval.Nanoseconds(), b.Limit.Span().Nanoseconds(), b.maxDebt().Nanoseconds())
	}
	return args
}

// readAnswer sets the results of a batch from what take.lua returned.
func readAnswer(answer []int64, batch []*member) error {
	for _, m := range batch {
		n := 3
		if m.req.Place != PlaceNone {
			n = 5
		}
		if len(answer) < n || answer[1] < 1 || int(answer[1]) > len(m.req.Buckets) {
			return errors.New("the script did not answer as it should")
		}
		bucket := int(answer[1]) - 1
		m.result = Result{Taken: answer[0] == 1, Bucket: bucket, Limit: m.req.Buckets[bucket].Limit, Debt: time.Duration(answer[2])}
		if n == 5 {
			m.result.Place, m.result.Pending = PlaceOutcome(answer[3]), answer[4]
		}
		answer = answer[n:]
	}
	if len(answer) > 0 {
		return errors.New("the script answered more than it was asked")
	}
	return nil
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
