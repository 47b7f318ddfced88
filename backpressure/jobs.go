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
	batchJobs    = 256                   // jobs read at once; fewer while that fails, for payloads may be large
	stepBatches  = 8                     // batches of a step of the sweeps
	sweepJobs    = 256                   // jobs of each sweep at a step
	sweepKeys    = 5000                  // keys of the walk through all keys, at a step
)

// maxLate is how often a job is put off whose payload is ahead of what was heard:
// the payload is written before the word is said.
const maxLate = 3

// forgetGone is how long an entry is kept of a job whose payload is gone, so that
// words which come late are not taken for a new job's.
const forgetGone = 2 * keepHeard

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
	batch   int    // jobs to read at once, batchJobs at most
	sweeps  sweeps
	found   []string       // ids that the sweeps came to and that are not looked at yet
	late    map[string]int // how often a job was put off
}

// NewJobs returns a counter that has not begun; cfg must be valid.
func NewJobs(cfg Config, rdb Redis, reg prometheus.Registerer, log *slog.Logger) *Jobs {
	return &Jobs{
		ledger:    ledger{rdb: rdb, queue: cfg.QueueName},
		known:     cfg.JobSources,
		heard:     newHeard(),
		batch:     batchJobs,
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
		ids := j.found[:min(j.batch, len(j.found))]
		if err := j.countJobs(ctx, ids, j.heard.of(ids)); err != nil {
			return err // they are looked at again
		}
		if j.token == "" {
			return nil
		}
		j.found = j.found[len(ids):]
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
	words := j.heard.first(j.batch)
	ids := make([]string, 0, len(words))
	for id := range words {
		ids = append(ids, id)
	}
	if err := j.countJobs(ctx, ids, words); err != nil {
		return err
	}
	j.heard.again()
	return nil
}

// countJobs brings the ledger to what the payloads say and counts the difference.
// The words are put back where that can't be done now.
func (j *Jobs) countJobs(ctx context.Context, ids []string, words map[string][]word) error {
	if len(ids) == 0 {
		return nil
	}
	if j.token == "" { // lost since the sweeps went on
		j.heard.restore(words)
		return nil
	}
	sights, now, err := j.ledger.read(ctx, ids)
	if err != nil {
		j.heard.restore(words)
		j.batch = max(1, len(ids)/2)
		return err
	}
	j.batch = min(batchJobs, 2*j.batch)
	j.batches++
	b := &batch{token: j.token, number: j.batches}
	putOff := make(map[string][]word)
	for _, s := range sights {
		entered, err := j.enter(b, s, words[s.id], now.UnixMilli())
		if err != nil {
			return err
		}
		if !entered {
			putOff[s.id] = words[s.id]
		}
	}
	j.heard.restore(putOff)
	if len(b.writes) == 0 {
		return nil
	}
	j.unsure = b
	if err := j.settle(ctx); err != nil {
		return err
	}
	if j.token == "" {
		j.heard.restore(words) // for the case that this replica leads again
	}
	return nil
}

// enter puts into b what there is to count and to write of one job; false: it is
// better looked at again when more was heard.
func (j *Jobs) enter(b *batch, s sight, words []word, now int64) (bool, error) {
	if s.entry == nil && s.job != nil && s.job.status().final() && int64(s.job.Completed) < j.since && len(words) == 0 {
		return true, nil // it had ended before the fleet began to count
	}
	next, t := follow(s.entry, s.job, words)
	if t.unheard && j.late[s.id] < maxLate {
		j.late[s.id]++
		return false, nil
	}
	delete(j.late, s.id)
	b.tally.add(t)
	if s.job == nil && next != nil {
		switch {
		case next.Gone == 0:
			gone := *next
			gone.Gone = now
			next = &gone
		case now-next.Gone >= forgetGone.Milliseconds():
			b.remove(s.id)
			return true, nil
		}
	}
	if next == nil || (s.entry != nil && *next == *s.entry) {
		return true, nil
	}
	return true, b.write(s.id, next)
}

// settle finds out whether the batch under way is in the ledger, and counts it
// if so. If it is not, another leads and will find the same.
func (j *Jobs) settle(ctx context.Context) error {
	if j.unsure == nil {
		return nil
	}
	done, err := j.ledger.commit(ctx, j.unsure)
	if err != nil {
		return err
	}
	if done {
		j.metrics.count(j.unsure.tally, j.known)
	} else if j.unsure.token == j.token {
		j.follow()
	}
	j.unsure = nil
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
