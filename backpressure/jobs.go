package backpressure

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What counting may cost Redis does not depend on the length of the queue. These
// are the bounds.
const (
	jobsInterval = time.Second           // between two steps of the sweeps
	relisten     = time.Second           // between two attempts to subscribe
	heardDelay   = 50 * time.Millisecond // from the first word until it is counted, with all said meanwhile
	batchJobs    = 256                   // jobs looked at at once
	batchBytes   = 1 << 20               // of payloads read at once, or a single one that is larger
	maxBytes     = 8 << 20               // of a payload; larger ones are passed over
	stepBatches  = 8                     // batches of a step of the sweeps
	sweepJobs    = 256                   // jobs that wait or run, at a step
	sweepEntries = 1024                  // entries of the ledger, at a step
	sweepKeys    = 5000                  // keys of the walk through all keys, at a step
)

// Jobs counts what becomes of the queue's jobs, each once over all replicas: the
// one that has the lease counts, and the ledger in Redis tells the next one what
// was counted. Run is all there is to call.
type Jobs struct {
	ledger  ledger
	known   Sources
	heard   *heard
	metrics *jobMetrics

	counting, listening health

	// Of the one goroutine that counts.
	token   string // of the lease; "": not held
	since   int64  // ms: jobs that had ended by then are not counted
	batches int64
	unsure  *batch // sent, but the answer was lost
	sweeps  sweeps
	found   []found        // what the sweeps came to and is not looked at yet
	late    map[string]int // how often a job was put off
}

// NewJobs returns a counter that has not begun; cfg must be valid.
func NewJobs(cfg Config, rdb Redis, reg prometheus.Registerer, log *slog.Logger) *Jobs {
	return &Jobs{
		ledger:    ledger{rdb: rdb, queue: cfg.QueueName},
		known:     cfg.JobSources,
		heard:     newHeard(),
		late:      make(map[string]int),
		metrics:   newJobMetrics(reg, cfg.JobSources),
		counting:  health{log: log, what: "job counting"},
		listening: health{log: log, what: "subscription to job statuses"},
	}
}

// Run listens, and counts while this replica has the lease, until ctx ends; it
// gives the lease up then and returns nil.
func (j *Jobs) Run(ctx context.Context) error {
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() { j.listen(ctx) })
	j.count(ctx)
	return nil
}

// listen subscribes anew whenever the subscription breaks: at once, for all that
// is said meanwhile is missed, but after a pause when that was tried just now.
func (j *Jobs) listen(ctx context.Context) {
	for {
		begin := time.Now()
		err := j.heard.listen(ctx, j.ledger.rdb, j.ledger.queue, j.listening.succeeded)
		if ctx.Err() != nil {
			return
		}
		j.listening.failed(err)
		pause := time.NewTimer(relisten - time.Since(begin))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

func (j *Jobs) count(ctx context.Context) {
	tick := time.NewTicker(jobsInterval)
	defer tick.Stop()
	heard := time.NewTimer(0)
	heard.Stop()
	defer heard.Stop()
	j.try(ctx, j.step)
	for {
		select {
		case <-ctx.Done():
			j.resign(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			j.try(ctx, j.step)
		case <-j.heard.spoken:
			heard.Reset(heardDelay)
			select {
			case <-ctx.Done():
				continue
			case <-heard.C:
			}
			j.try(ctx, j.countHeard)
		}
	}
}

// stepTime bounds all exchanges of one step, within the lease.
const stepTime = leaseTime / 2

// try takes one step and tells of its outcome.
func (j *Jobs) try(ctx context.Context, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	switch err := do(ctx); {
	case err == nil:
		j.counting.succeeded()
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
	default:
		j.metrics.errors.Inc()
		j.counting.failed(err)
	}
}

// step sees to the lease and takes the sweeps on by one step.
func (j *Jobs) step(ctx context.Context) error {
	if err := j.settle(ctx); err != nil {
		return err
	}
	if err := j.lead(ctx); err != nil {
		return err
	}
	if j.token == "" {
		j.heard.forget(time.Now().Add(-keepHeard))
		return nil
	}
	if j.heard.takeMissed() {
		j.sweeps.keys, j.sweeps.keysDue = 0, true
	}
	if len(j.found) == 0 {
		var err error
		if j.found, err = j.ledger.next(ctx, &j.sweeps); err != nil {
			return err
		}
	}
	for range stepBatches {
		next := j.found[:min(batchJobs, len(j.found))]
		n, err := j.countJobs(ctx, next, nil)
		if err != nil {
			return err // they are looked at again
		}
		if j.token == "" {
			return nil
		}
		j.found = j.found[n:]
	}
	j.heard.again() // what could not be counted when it was said
	return nil
}

// lead renews the lease, or tries to get it. A lease that ended is taken under a
// new token: another may have counted in between.
func (j *Jobs) lead(ctx context.Context) error {
	token, renew := j.token, true
	if token == "" {
		token, renew = rand.Text(), false
	}
	held, since, err := j.ledger.lease(ctx, token, renew)
	switch {
	case err != nil:
		return err
	case !held:
		j.follow()
	case !renew:
		j.token, j.since = token, since
		j.metrics.leader.Set(1)
		j.heard.miss() // all that happened while nobody counted
	}
	return nil
}

// follow leaves the counting to others.
func (j *Jobs) follow() {
	j.token = ""
	j.found = nil
	clear(j.late)
	j.metrics.leader.Set(0)
}

// countHeard counts the jobs that were spoken of.
func (j *Jobs) countHeard(ctx context.Context) error {
	if err := j.settle(ctx); err != nil || j.token == "" {
		return err
	}
	ids, words := j.heard.first(batchJobs)
	jobs := make([]found, len(ids))
	for i, id := range ids {
		jobs[i] = found{id, true}
	}
	if _, err := j.countJobs(ctx, jobs, words); err != nil {
		return err
	}
	j.heard.again()
	return nil
}

// resign lets another go on at once.
func (j *Jobs) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxSampleTime)
	defer cancel()
	if err := j.settle(ctx); err != nil {
		j.counting.failed(err)
	}
	if j.token == "" {
		return
	}
	if err := j.ledger.resign(ctx, j.token); err != nil {
		j.counting.failed(err)
	}
	j.follow()
}
