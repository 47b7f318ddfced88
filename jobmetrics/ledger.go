package jobmetrics

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lease.lua
var leaseSource string

//go:embed resign.lua
var resignSource string

//go:embed commit.lua
var commitSource string

var (
	leaseScript  = redis.NewScript(leaseSource)
	resignScript = redis.NewScript(resignSource)
	commitScript = redis.NewScript(commitSource)
)

const (
	// leaseTime is for how long no job is counted when the replica that counts is
	// killed. The next one catches up.
	leaseTime = 5 * time.Second
	// keepBatch is how long an answer that was lost can still be asked for.
	keepBatch = time.Hour
	// scanEntries is about how many entries of the ledger one call goes through.
	scanEntries = 256
)

// Redis is what the package needs of a client. The client must not retry by itself.
type Redis interface {
	redis.Scripter
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
	HScan(ctx context.Context, key string, cursor uint64, match string, count int64) *redis.ScanCmd
}

var _ Redis = redis.UniversalClient(nil)

// ledger keeps in Redis what has been counted, for one queue.
type ledger struct {
	rdb   Redis
	queue string
}

// key is the hash job id → entry.
func (l ledger) key() string { return "refrakt:gate:jobs:" + l.queue }

// leaseKey holds the token of the replica that counts.
func (l ledger) leaseKey() string { return l.key() + ":lease" }

// sinceKey holds the time in ms at which the fleet began to count.
func (l ledger) sinceKey() string { return l.key() + ":since" }

// batchKey holds the number of the last batch that the holder of token wrote.
func (l ledger) batchKey(token string) string { return l.key() + ":batch:" + token }

// lease takes the lease for token, or renews it. since is when the fleet began to
// count, in ms.
func (l ledger) lease(ctx context.Context, token string, renew bool) (held bool, since int64, err error) {
	answer, err := leaseScript.Run(ctx, l.rdb, []string{l.leaseKey(), l.sinceKey()}, token, leaseTime.Milliseconds(), renew).Int64Slice()
	if err != nil {
		return false, 0, fmt.Errorf("run lease script: %w", err)
	}
	if len(answer) != 2 {
		return false, 0, fmt.Errorf("read lease answer: %d numbers instead of 2", len(answer))
	}
	return answer[0] == 1, answer[1], nil
}

func (l ledger) resign(ctx context.Context, token string) error {
	if err := resignScript.Run(ctx, l.rdb, []string{l.leaseKey()}, token).Err(); err != nil {
		return fmt.Errorf("run resign script: %w", err)
	}
	return nil
}

// entries returns what has been counted of these jobs, nil for nothing, and the
// time by Redis's clock.
func (l ledger) entries(ctx context.Context, ids []string) (entries []*entry, now time.Time, err error) {
	var clock *redis.TimeCmd
	var values *redis.SliceCmd
	_, err = l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		clock = p.Time(ctx)
		values = p.HMGet(ctx, l.key(), ids...)
		return nil
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the ledger: %w", err)
	}
	entries = make([]*entry, len(ids))
	for i, value := range values.Val() {
		if text, ok := value.(string); ok {
			// An entry that can't be read is as good as none.
			if e := new(entry); json.Unmarshal([]byte(text), e) == nil {
				entries[i] = e
			}
		}
	}
	return entries, clock.Val(), nil
}

// scan returns the ids of some entries and the cursor of the next call, 0 at the end.
func (l ledger) scan(ctx context.Context, cursor uint64) (ids []string, next uint64, err error) {
	fields, next, err := l.rdb.HScan(ctx, l.key(), cursor, "", scanEntries).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scan the ledger: %w", err)
	}
	for id := range everySecond(fields) { // less the entries
		ids = append(ids, id)
	}
	return ids, next, nil
}

func everySecond(pairs []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(pairs) && yield(pairs[i]); i += 2 {
		}
	}
}

// batch is what is written into the ledger at once, and then counted.
type batch struct {
	token  string
	number int64
	writes []any // pairs of id and entry; an empty entry removes the id
	tally  tally
	events map[string][]event // those taken into account
}

func (b *batch) write(id string, e *entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode ledger entry: %w", err)
	}
	b.writes = append(b.writes, id, text)
	return nil
}

func (b *batch) remove(id string) { b.writes = append(b.writes, id, "") }

// commit writes b, or finds out that it is written. False says that it is not and
// won't be, since another replica has the lease. After an error either may be so:
// commit is to be called again.
func (l ledger) commit(ctx context.Context, b *batch) (bool, error) {
	keys := []string{l.leaseKey(), l.key(), l.batchKey(b.token)}
	args := append([]any{b.token, b.number, keepBatch.Milliseconds()}, b.writes...)
	done, err := commitScript.Run(ctx, l.rdb, keys, args...).Bool()
	if err != nil {
		return false, fmt.Errorf("run commit script: %w", err)
	}
	return done, nil
}
