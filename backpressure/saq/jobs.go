package saq

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

//go:embed jobs.lua
var jobsLua string

var jobsScript = redis.NewScript(payloadLua + jobsLua)

// What one call asks of Redis: less than a millisecond of its time.
const (
	readJobs    = 16  // jobs whose payloads are read
	readLarge   = 4   // jobs of which much is read, see LARGE_READS in payload.lua
	scanUnended = 256 // about so many jobs that have not ended
	scanAll     = 100 // about so many keys
)

// silence is how long a subscription may be quiet until the gate pings. After as much
// silence again the subscription counts as lost.
const silence = 2 * time.Second

// Read implements jobmetrics.Queue.
func (q *Queue) Read(ctx context.Context, lookups []job.Lookup) ([]job.Reading, error) {
	readings := make([]job.Reading, 0, len(lookups))
	for chunk := range slices.Chunk(lookups, readJobs) {
		some, again, err := q.read(ctx, chunk)
		if err != nil {
			return nil, err
		}
		// A call reads much of a few jobs only.
		for few := range slices.Chunk(again, readLarge) {
			lookups := make([]job.Lookup, len(few))
			for i, at := range few {
				lookups[i] = chunk[at]
			}
			more, _, err := q.read(ctx, lookups)
			if err != nil {
				return nil, err
			}
			for i, at := range few {
				some[at] = more[i]
			}
		}
		readings = append(readings, some...)
	}
	return readings, nil
}

// read makes one call. again are the places of the jobs that a call for fewer jobs
// could read.
func (q *Queue) read(ctx context.Context, lookups []job.Lookup) (readings []job.Reading, again []int, err error) {
	ids, args := make([]string, len(lookups)), []any{q.json}
	for i, l := range lookups {
		ids[i] = l.ID
		args = append(args, !l.OnlyExists)
	}
	answers, err := jobsScript.Run(ctx, q.rdb, ids, args...).Slice()
	if err != nil {
		return nil, nil, fmt.Errorf("run jobs script: %w", err)
	}
	if len(answers) != len(lookups) {
		return nil, nil, fmt.Errorf("read jobs answer: %d jobs instead of %d", len(answers), len(lookups))
	}
	for i, a := range answers {
		list, _ := a.([]any)
		readings = append(readings, q.reading(list))
		if len(list) == 3 && list[2] == int64(1) {
			again = append(again, i)
		}
	}
	return readings, again, nil
}

// reading is what jobs.lua returned of one job.
func (q *Queue) reading(list []any) job.Reading {
	if len(list) == 0 || list[0] == int64(0) {
		return job.Reading{}
	}
	r := job.Reading{Exists: true}
	if f, ok := parseFields(list[1:]); ok {
		if f.queue == q.name && job.Status(f.status).Known() {
			source, _ := list[len(list)-1].(string)
			r.Job = f.asJob(source)
		}
	} else if len(list) == 3 {
		status, _ := list[1].(string)
		r.Status = job.Status(status)
	}
	return r
}

// ScanUnended implements jobmetrics.Queue.
func (q *Queue) ScanUnended(ctx context.Context, cursor uint64) (ids []string, next uint64, err error) {
	members, next, err := q.rdb.ZScan(ctx, q.incompleteKey(), cursor, "", scanUnended).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scan the jobs that have not ended: %w", err)
	}
	for i := 0; i < len(members); i += 2 { // less the scores
		ids = append(ids, members[i])
	}
	return ids, next, nil
}

// ScanAll implements jobmetrics.Queue.
func (q *Queue) ScanAll(ctx context.Context, cursor uint64) (ids []string, next uint64, err error) {
	ids, next, err = q.rdb.Scan(ctx, cursor, q.jobPattern(), scanAll).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scan all jobs: %w", err)
	}
	return ids, next, nil
}

// Subscribe implements jobmetrics.Queue. SAQ publishes each status of a job on a
// channel that is called like the job's id. Redis has the same channels for all of
// its databases.
func (q *Queue) Subscribe(ctx context.Context, ready func(), deliver func(job.Event)) error {
	sub := q.rdb.PSubscribe(ctx, q.jobPattern())
	// Nothing else ends a read early.
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer func() {
		if stop() {
			sub.Close()
		}
	}()
	quiet := false
	for {
		message, err := sub.ReceiveTimeout(ctx, silence)
		switch {
		case err == nil:
		case isTimeout(err) && !quiet:
			quiet = true
			if err := sub.Ping(ctx); err != nil {
				return fmt.Errorf("ping the subscription: %w", err)
			}
			continue
		default:
			return fmt.Errorf("receive job statuses: %w", err)
		}
		quiet = false
		switch m := message.(type) {
		case *redis.Subscription:
			ready()
		case *redis.Message:
			deliver(job.Event{ID: m.Channel, Status: job.Status(m.Payload)})
		}
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
