package jobmetrics

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// maxDeferred is how many times a job is deferred while an event of it has not arrived
// yet: the queue is written before the event is published.
const maxDeferred = 3

// keepMissing is how long an entry is kept of a job of which the queue keeps
// nothing, so that a late event is not taken for another job's.
const keepMissing = 2 * keepEvents

// record brings the ledger up to what the queue keeps of these jobs, and counts the
// difference. seen is the events of the jobs; nil means that record takes them. The
// events of jobs that can't be counted now are put back.
func (c *Counter) record(ctx context.Context, candidates []candidate, seen map[string][]event) error {
	ids := make([]string, len(candidates))
	for i, j := range candidates {
		ids[i] = j.id
	}
	if seen == nil {
		seen = c.events.take(ids)
	}
	if len(candidates) == 0 {
		return nil
	}
	b, back, err := c.compare(ctx, candidates, seen)
	if err != nil {
		c.events.restore(ids, seen)
		return err
	}
	c.events.restore(ids, back)
	if len(b.writes) == 0 {
		return nil
	}
	c.pending = b
	return c.settle(ctx)
}

// compare fills a batch with what there is to write and to count. back is the
// events of jobs that are better counted later.
func (c *Counter) compare(ctx context.Context, candidates []candidate, seen map[string][]event) (b *batch, back map[string][]event, err error) {
	ids := make([]string, len(candidates))
	for i, j := range candidates {
		ids[i] = j.id
	}
	entries, now, err := c.ledger.entries(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	lookups := make([]job.Lookup, len(ids))
	for i, id := range ids {
		lookups[i] = job.Lookup{ID: id, OnlyExists: len(seen[id]) == 0 && c.unchanged(candidates[i], entries[i])}
	}
	readings, err := c.queue.Read(ctx, lookups)
	if err != nil {
		return nil, nil, err
	}
	c.batches++
	b = &batch{token: c.token, number: c.batches, events: maps.Clone(seen)}
	back = make(map[string][]event)
	for i, id := range ids {
		done, err := c.enter(b, id, entries[i], readings[i], seen[id], now.UnixMilli())
		if err != nil {
			return nil, nil, err
		}
		if !done {
			back[id] = seen[id]
			delete(b.events, id)
		}
	}
	return b, back, nil
}

// unchanged says that a job of which no event has come is as the ledger has it, so that it
// is not read again. Events tell when a job that waits starts or ends. The walk through all
// jobs makes up for events that were missed. Now and then a job is read all the same.
func (c *Counter) unchanged(j candidate, e *entry) bool {
	switch {
	case e == nil || j.from == fromAll || c.deferred[j.id] > 0:
		return false
	case e.Status.Final():
		return j.from == fromLedger
	case e.Status != job.Queued: // few do, and a worker that dies at the wrong moment publishes no end
		return false
	default:
		return rand.IntN(readAnyway) > 0
	}
}

// readAnyway is one in how many looks at a job that should not have changed reads it.
const readAnyway = 16

// enter puts into b what there is to count and to write of one job. False says that
// the job is better looked at again when more events have arrived.
func (c *Counter) enter(b *batch, id string, old *entry, r job.Reading, seen []event, now int64) (bool, error) {
	if old == nil && r.Job != nil && r.Job.Status.Final() && r.Job.Ended < c.since && len(seen) == 0 {
		return true, nil // it had ended before the fleet began to count
	}
	// Of a job that can't be read, only its end is counted, by the status or by an event.
	if ended := len(seen) > 0 && seen[len(seen)-1].status.Final(); r.Exists && r.Job == nil && !ended {
		if !r.Status.Final() {
			return true, nil // nothing is known that is new
		}
		seen = append(slices.Clone(seen), event{r.Status, time.Now().UnixMicro()})
	}
	next, t := advance(old, r.Job, seen)
	// No more events come of a job that had ended before its first event arrived.
	mayCome := len(seen) > 0 || old != nil || next != nil && !next.Status.Final()
	if t.incomplete && mayCome && c.deferred[id] < maxDeferred {
		c.deferred[id]++
		return false, nil
	}
	delete(c.deferred, id)
	b.tally.add(t)
	if !r.Exists && next != nil {
		switch {
		case next.Missing == 0:
			missing := *next
			missing.Missing = now
			next = &missing
		case now-next.Missing >= keepMissing.Milliseconds():
			b.remove(id)
			return true, nil
		}
	}
	if next == nil || old != nil && *next == *old {
		return true, nil
	}
	return true, b.write(id, next)
}

// settle finds out whether the pending batch is in the ledger, and counts it if so.
// If not, another replica counts and will find the same.
func (c *Counter) settle(ctx context.Context) error {
	if c.pending == nil {
		return nil
	}
	done, err := c.ledger.commit(ctx, c.pending)
	if err != nil {
		return err
	}
	if done {
		c.metrics.count(c.pending.tally, c.sources)
	} else {
		// This replica may count again later.
		c.events.restore(slices.Collect(maps.Keys(c.pending.events)), c.pending.events)
		if c.pending.token == c.token {
			c.follow()
		}
	}
	c.pending = nil
	return nil
}
