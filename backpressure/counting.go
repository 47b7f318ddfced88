package backpressure

import (
	"context"
	"maps"
	"slices"
)

// maxLate is how often a job is put off whose payload is ahead of what was heard:
// the payload is written before the word is said.
const maxLate = 3

// forgetGone is how long an entry is kept of a job whose payload is gone, so that
// words which come late are not taken for a new job's.
const forgetGone = 2 * keepHeard

// countJobs brings the ledger to what the payloads say and counts the difference,
// for the first n of the jobs: as many as their payloads' sizes allow. words are
// what was heard of them, nil: to be taken from what is there. They are put back
// for the jobs that can't be counted now.
func (j *Jobs) countJobs(ctx context.Context, jobs []found, words map[string][]word) (n int, err error) {
	ids := make([]string, len(jobs))
	for i, f := range jobs {
		ids[i] = f.id
	}
	if words == nil {
		words = j.heard.of(ids)
	}
	if len(jobs) == 0 {
		return 0, nil
	}
	if j.token == "" { // lost since the sweeps went on
		j.heard.restore(ids, words)
		return 0, nil
	}
	sights, now, err := j.ledger.look(ctx, ids)
	if err == nil {
		n, err = j.fetch(ctx, jobs, sights, words)
	}
	if err != nil {
		j.heard.restore(ids, words)
		return 0, err
	}
	back := make(map[string][]word)
	for _, id := range ids[n:] {
		if w, ok := words[id]; ok {
			back[id] = w
			delete(words, id)
		}
	}
	j.batches++
	b := &batch{token: j.token, number: j.batches, words: words}
	for _, s := range sights[:n] {
		entered, err := j.enter(b, s, words[s.id], now.UnixMilli())
		if err != nil {
			return 0, err
		}
		if !entered {
			back[s.id] = words[s.id]
			delete(words, s.id)
		}
	}
	j.heard.restore(ids, back)
	if len(b.writes) == 0 {
		return n, nil
	}
	j.unsure = b
	return n, j.settle(ctx)
}

// fetch reads payloads until batchBytes are reached, and returns how many jobs
// are done with. What has ended by the ledger is not read again without a reason:
// its payload may be large, and is kept for as long as SAQ's ttl says.
func (j *Jobs) fetch(ctx context.Context, jobs []found, sights []sight, words map[string][]word) (n int, err error) {
	var wanted []*sight
	bytes := int64(0)
	for ; n < len(sights); n++ {
		s := &sights[n]
		ended := s.entry != nil && s.entry.Status.final()
		if s.size == 0 || s.size > maxBytes || (ended && !jobs[n].inUse && len(words[s.id]) == 0) {
			continue
		}
		if bytes += s.size; bytes > batchBytes && len(wanted) > 0 {
			break
		}
		wanted = append(wanted, s)
	}
	return n, j.ledger.fetch(ctx, wanted)
}

// enter puts into b what there is to count and to write of one job; false: it is
// better looked at again when more was heard.
func (j *Jobs) enter(b *batch, s sight, words []word, now int64) (bool, error) {
	if s.entry == nil && s.job != nil && s.job.status().final() && int64(s.job.Completed) < j.since && len(words) == 0 {
		return true, nil // it had ended before the fleet began to count
	}
	if s.job == nil && s.size > 0 {
		return true, nil // nothing new of it, too large, another queue's, or not SAQ's JSON
	}
	next, t := follow(s.entry, s.job, words)
	// Of what had ended before it was heard of nothing more will be.
	mayHear := len(words) > 0 || s.entry != nil || !next.Status.final()
	if t.unheard && mayHear && j.late[s.id] < maxLate {
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
	} else {
		j.heard.restore(slices.Collect(maps.Keys(j.unsure.words)), j.unsure.words) // for the case that this replica leads again
		if j.unsure.token == j.token {
			j.follow()
		}
	}
	j.unsure = nil
	return nil
}
