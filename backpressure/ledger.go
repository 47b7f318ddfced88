package backpressure

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lease.lua
var leaseSource string

//go:embed resign.lua
var resignSource string

//go:embed commit.lua
var commitSource string

//go:embed sizes.lua
var sizesSource string

var (
	leaseScript  = redis.NewScript(leaseSource)
	resignScript = redis.NewScript(resignSource)
	commitScript = redis.NewScript(commitSource)
)

const (
	// leaseTime is how long the jobs go uncounted when the replica that counts is
	// killed. They are caught up with.
	leaseTime = 5 * time.Second
	// keepBatch is how long an answer that was lost can still be asked for.
	keepBatch = time.Hour
)

// ledger is what has been counted, in Redis, for one queue.
type ledger struct {
	rdb   Redis
	queue string
}

// sight is one job: what the ledger and its payload say.
type sight struct {
	id    string
	entry *entry // nil: not in the ledger
	size  int64  // bytes of the payload; 0: there is none
	job   *job   // nil: not fetched, none, or not to be read
}

// lease takes the lease for token, or renews it; since is when the fleet began
// to count, in ms.
func (l ledger) lease(ctx context.Context, token string, renew bool) (held bool, since int64, err error) {
	keys := []string{leaseKey(l.queue), sinceKey(l.queue)}
	answer, err := leaseScript.Run(ctx, l.rdb, keys, token, leaseTime.Milliseconds(), renew).Int64Slice()
	if err != nil {
		return false, 0, fmt.Errorf("run lease script: %w", err)
	}
	if len(answer) != 2 {
		return false, 0, fmt.Errorf("read lease answer: %d numbers instead of 2", len(answer))
	}
	return answer[0] == 1, answer[1], nil
}

func (l ledger) resign(ctx context.Context, token string) error {
	if err := resignScript.Run(ctx, l.rdb, []string{leaseKey(l.queue)}, token).Err(); err != nil {
		return fmt.Errorf("run resign script: %w", err)
	}
	return nil
}

// look asks what the ledger says of these jobs and how large their payloads are,
// in one round trip, by Redis's clock.
func (l ledger) look(ctx context.Context, ids []string) (sights []sight, now time.Time, err error) {
	var (
		clock   *redis.TimeCmd
		entries *redis.SliceCmd
		sizes   *redis.Cmd
	)
	_, err = l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		clock = p.Time(ctx)
		entries = p.HMGet(ctx, ledgerKey(l.queue), ids...)
		sizes = p.Eval(ctx, sizesSource, ids)
		return nil
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("look at jobs: %w", err)
	}
	bytes, err := sizes.Int64Slice()
	if err != nil || len(bytes) != len(ids) {
		return nil, time.Time{}, fmt.Errorf("read sizes: %d for %d jobs: %w", len(bytes), len(ids), err)
	}
	sights = make([]sight, len(ids))
	for i, id := range ids {
		sights[i] = sight{id: id, size: bytes[i]}
		if text, ok := entries.Val()[i].(string); ok {
			// An entry that can't be read is as good as none.
			if e := new(entry); json.Unmarshal([]byte(text), e) == nil {
				sights[i].entry = e
			}
		}
	}
	return sights, clock.Val(), nil
}

// fetch reads the payloads of these jobs.
func (l ledger) fetch(ctx context.Context, sights []*sight) error {
	if len(sights) == 0 {
		return nil
	}
	ids := make([]string, len(sights))
	for i, s := range sights {
		ids[i] = s.id
	}
	payloads, err := l.rdb.MGet(ctx, ids...).Result()
	if err != nil {
		return fmt.Errorf("read payloads: %w", err)
	}
	for i, s := range sights {
		text, there := payloads[i].(string)
		if !there {
			s.size = 0 // gone since
			continue
		}
		s.job = parseJob(text, l.queue)
	}
	return nil
}

// batch is what is written into the ledger at one go, and then counted.
type batch struct {
	token  string
	number int64
	writes []any // pairs of id and entry; an empty entry removes the id
	tally  tally
	words  map[string][]word // what was taken into account
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

// commit writes b, or finds out that it is written. False: it is not, and won't
// be, since another has the lease. After an error either may be so: ask again.
func (l ledger) commit(ctx context.Context, b *batch) (bool, error) {
	keys := []string{leaseKey(l.queue), ledgerKey(l.queue), batchKey(l.queue, b.token)}
	args := append([]any{b.token, b.number, keepBatch.Milliseconds()}, b.writes...)
	done, err := commitScript.Run(ctx, l.rdb, keys, args...).Bool()
	if err != nil {
		return false, fmt.Errorf("run commit script: %w", err)
	}
	return done, nil
}

// sweeps are slow walks through all jobs, some at each step, that find what was
// not heard. A walk that is at its end begins anew.
type sweeps struct {
	incomplete, ledger, keys uint64
	keysDue                  bool // the walk through all keys is under way
}

// found is a job that a sweep has come to.
type found struct {
	id string
	// inUse says that it came by other ways than the ledger: what has ended by the
	// ledger may have been enqueued again.
	inUse bool
}

// next returns the next jobs of each walk.
func (l ledger) next(ctx context.Context, s *sweeps) ([]found, error) {
	var incomplete, entries, keys *redis.ScanCmd
	_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		incomplete = p.ZScan(ctx, incompleteKey(l.queue), s.incomplete, "", sweepJobs)
		entries = p.HScan(ctx, ledgerKey(l.queue), s.ledger, "", sweepEntries)
		if s.keysDue {
			keys = p.Scan(ctx, s.keys, jobPattern(l.queue), sweepKeys)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan jobs: %w", err)
	}
	var all []found
	members, cursor := incomplete.Val()
	s.incomplete = cursor
	for id := range everySecond(members) { // less the scores
		all = append(all, found{id, true})
	}
	fields, cursor := entries.Val()
	s.ledger = cursor
	for id := range everySecond(fields) { // less the entries
		all = append(all, found{id, false})
	}
	if keys != nil {
		ids, cursor := keys.Val()
		s.keys, s.keysDue = cursor, cursor != 0
		for _, id := range ids {
			all = append(all, found{id, true})
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		if a.id == b.id && a.inUse != b.inUse {
			return map[bool]int{true: -1, false: 1}[a.inUse]
		}
		return strings.Compare(a.id, b.id)
	})
	return slices.CompactFunc(all, func(a, b found) bool { return a.id == b.id }), nil
}

func everySecond(pairs []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(pairs) && yield(pairs[i]); i += 2 {
		}
	}
}
