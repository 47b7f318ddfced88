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
	scanUnended = 256 // about so many jobs that have not ended
	scanAll     = 400 // about so many keys
)

// silence is how long a subscription may be quiet until the server must prove that it
// is there, and then how long until it is taken for gone.
const silence = 2 * time.Second

// Read implements jobmetrics.Queue.
func (q *Queue) Read(ctx context.Context, lookups []job.Lookup) ([]job.Reading, error) {
	readings := make([]job.Reading, 0, len(lookups))
	for chunk := range slices.Chunk(lookups, readJobs) {
		ids, args := make([]string, len(chunk)), []any{q.json}
		for i, l := range chunk {
			ids[i] = l.ID
			args = append(args, !l.OnlyExists)
		}
		answers, err := jobsScript.Run(ctx, q.rdb, ids, args...).Slice()
		if err != nil {
			return nil, fmt.Errorf("run jobs script: %w", err)
		}
		if len(answers) != len(chunk) {
			return nil, fmt.Errorf("read jobs answer: %d jobs instead of %d", len(answers), len(chunk))
		}
		for _, a := range answers {
			readings = append(readings, q.reading(a))
		}
	}
	return readings, nil
}

// reading is what jobs.lua returned of one job.
func (q *Queue) reading(answer any) job.Reading {
	list, _ := answer.([]any)
	if len(list) == 0 || list[0] == int64(0) {
		return job.Reading{}
	}
	r := job.Reading{Exists: true}
	if f, ok := parseFields(list[1:]); ok {
		if f.queue == q.name && job.Status(f.status).Known() {
			source, _ := list[len(list)-1].(string)
			r.Job = f.asJob(source)
		}
	} else if len(list) == 2 {
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
