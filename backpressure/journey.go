package backpressure

import "slices"

// entry is what has been counted of a job.
type entry struct {
	Queued   int64  `json:"q"` // ms: tells a job from an earlier one with the same key
	Attempts int64  `json:"a"`
	Status   status `json:"s"`
	Runnable int64  `json:"r,omitempty"` // ms: since when it waits; 0 unless queued
	Started  int64  `json:"b,omitempty"` // ms: newest start
	Heard    int64  `json:"h,omitempty"` // µs: the newest word that was heard by then
	Gone     int64  `json:"g,omitempty"` // ms: since when its payload is missed
}

// word is a status that SAQ published.
type word struct {
	status status
	at     int64 // µs, when it arrived here
}

func (w word) millis() int64 { return w.at / 1000 }

// tally is what there is to count of a job.
type tally struct {
	jobs        []*job // seen for the first time
	transitions []transition
	waits, runs []float64 // seconds
	unheard     bool      // a time that only words could tell is missing
}

type transition struct{ from, to status }

func (t *tally) add(o tally) {
	t.jobs = append(t.jobs, o.jobs...)
	t.transitions = append(t.transitions, o.transitions...)
	t.waits = append(t.waits, o.waits...)
	t.runs = append(t.runs, o.runs...)
	t.unheard = t.unheard || o.unheard
}

// follow goes the way of one job from what has been counted of it (nil: nothing)
// to what its payload says (nil: there is none). It returns what has been counted
// then, and what there is to count on the way.
//
// Steps that nobody saw are inferred: a job of SAQ waits before it starts, each
// attempt is a start, and an abort has two steps. Words tell what a payload
// forgets: an abort before a retry, the times of earlier attempts, and that a key
// was used by another job before. Words that were there when the entry was written
// only tell times, so it does no harm to hear them again.
func follow(old *entry, now *job, words []word) (*entry, tally) {
	var t tally
	news, heard, newest := since(old, words), int64(0), int64(0)
	if len(words) > 0 {
		newest = words[len(words)-1].at
	}
	if old != nil {
		heard = old.Heard
	}
	if now == nil {
		if now = imagine(old, news); now == nil {
			return old, tally{}
		}
	}
	if old == nil || old.Queued != int64(now.Queued) {
		t, words = earlier(old, now, news)
		news, old = words, nil
	}
	w := walk{now: now, status: statusUnknown}
	if old == nil {
		t.jobs = append(t.jobs, now)
	} else {
		w.status, w.attempts, w.runnable = old.Status, old.Attempts, old.Runnable
	}
	steps := path(old, now, news)
	for i, at := range heardAt(steps, words) {
		w.step(steps[i], at, i == len(steps)-1)
	}
	t.add(w.tally)

	next := &entry{
		Queued: int64(now.Queued), Attempts: int64(now.Attempts), Status: now.status(), Started: int64(now.Started), Heard: heard,
	}
	if old != nil {
		// An update by the enqueuer's own copy of the job may take attempts back.
		next.Attempts = max(next.Attempts, old.Attempts)
	}
	// Progress that is told again and again is not worth a write each time.
	if newest > heard && (len(steps) > 0 || next.Status.final()) {
		next.Heard = newest
	}
	if next.Status == statusQueued {
		next.Runnable = now.runnable()
	}
	return next, t
}

// since are the words that had not been heard when e was written.
func since(e *entry, words []word) []word {
	if e == nil {
		return words
	}
	return slices.DeleteFunc(slices.Clone(words), func(w word) bool { return w.at <= e.Heard })
}

// earlier counts the jobs that used the key before now did and whose ends were
// only heard, beginning with old if that had not ended. It returns the words
// about now itself.
func earlier(old *entry, now *job, words []word) (t tally, rest []word) {
	if old != nil && old.Status.final() {
		old = nil
	}
	for i := 0; i < len(words); i++ {
		if !words[i].status.final() {
			continue
		}
		// An end can't be now's own if a start came after it (a retry would be a
		// wait first), or if now has not ended.
		another := i+1 < len(words) && words[i+1].status == statusActive
		if i+1 == len(words) {
			another = old != nil || (now.status() == statusQueued && now.Attempts == 0)
		}
		// SAQ may tell of an end twice; without a start there was no other job.
		if !another || (old == nil && !said(words[:i+1], statusActive)) {
			continue
		}
		if ended := imagine(old, words[:i+1]); ended != nil {
			ended.Kwargs = now.Kwargs // the best guess at its source
			_, u := follow(old, ended, words[:i+1])
			t.add(u)
		}
		old, words, i = nil, words[i+1:], -1
	}
	return t, words
}

func said(words []word, s status) bool {
	return slices.ContainsFunc(words, func(w word) bool { return w.status == s })
}

// imagine makes up the payload of a job that has ended and whose payload is gone
// already (SAQ's ttl can be so); nil if there is no end to be told of.
func imagine(old *entry, words []word) *job {
	if len(words) == 0 {
		return nil
	}
	last := words[len(words)-1]
	if !last.status.final() {
		return nil
	}
	if old != nil && old.Status.final() {
		// SAQ may tell of an end twice; with a start it is another job's.
		if !said(words, statusActive) {
			return nil
		}
		old = nil
	}
	j := &job{Completed: float64(last.millis())}
	j.Status = string(last.status)
	waited := true
	if old != nil {
		j.Queued, j.Attempts, j.Started = float64(old.Queued), float64(old.Attempts), float64(old.Started)
		waited = old.Status == statusQueued
	}
	start := slices.IndexFunc(words, func(w word) bool { return w.status == statusActive })
	if waited && (start >= 0 || last.status != statusAborted) {
		j.Attempts++
		j.Started = 0
		if start >= 0 {
			j.Started = float64(words[start].millis())
		}
	}
	return j
}

// maxInferred bounds the starts that are inferred for one job at a time.
const maxInferred = 1000

// path lists the statuses on the way from old to now.
func path(old *entry, now *job, words []word) []status {
	at, starts := statusQueued, int64(now.Attempts)
	var steps []status
	if old == nil {
		steps = append(steps, statusQueued)
	} else {
		at, starts = old.Status, max(starts, old.Attempts)-old.Attempts
	}
	for range min(starts, maxInferred) {
		if at != statusQueued {
			steps = append(steps, statusQueued)
		}
		steps = append(steps, statusActive)
		at = statusActive
	}

	end := now.status()
	aborting := said(words, statusAborting)
	switch {
	case end == statusAborted && at != statusAborting && at != statusAborted:
		steps = append(steps, statusAborting, end)
	case end == statusQueued && at == statusActive && aborting:
		// Swept. A worker that still lived has ended the job before it was given back.
		steps = append(steps, statusAborting)
		if said(words, statusAborted) {
			steps = append(steps, statusAborted)
		}
		steps = append(steps, end)
	case end != at:
		steps = append(steps, end)
	case end == statusQueued && starts <= 0 && now.retried() && aborting && (old == nil || now.runnable() > old.Runnable):
		// Swept between two looks: taken by a worker that never marked it active.
		steps = append(steps, statusAborting, end)
	}
	return steps
}

// heardAt finds for each step the time of the word that told of it; 0: not heard.
// The last steps are what the last words told. A status that is told again and
// again is one step, begun with the first.
func heardAt(steps []status, words []word) []int64 {
	words = slices.CompactFunc(slices.Clone(words), func(a, b word) bool { return a.status == b.status })
	times := make([]int64, len(steps))
	for i := len(steps) - 1; i >= 0; i-- {
		for j, w := range slices.Backward(words) {
			if w.status == steps[i] {
				times[i] = w.millis()
				words = words[:j]
				break
			}
		}
	}
	return times
}

// walk goes along a path and collects what there is to count.
type walk struct {
	now *job

	status   status
	attempts int64
	runnable int64 // ms; 0: not known
	heard    bool  // runnable was heard, so it is of our own clock
	tally    tally
}

func (w *walk) step(to status, heard int64, last bool) {
	w.tally.transitions = append(w.tally.transitions, transition{w.status, to})
	switch {
	case to == statusQueued:
		w.wait(heard, last)
	case to == statusActive:
		w.start(heard)
	case to.final() && w.now.Started > 0 && w.now.Completed > 0:
		w.tally.runs = append(w.tally.runs, max(0, w.now.Completed-w.now.Started)/1000)
	}
	w.status = to
}

func (w *walk) wait(heard int64, last bool) {
	w.runnable, w.heard = 0, false
	switch {
	case last:
		w.runnable = w.now.runnable()
	case w.status == statusUnknown:
		w.runnable = int64(max(w.now.Queued, w.now.Scheduled*1000))
	case heard > 0:
		p := w.now.payload
		p.Attempts = float64(w.attempts)
		w.runnable, w.heard = heard+int64(p.retryDelay()*1000), true
	default:
		w.tally.unheard = true
	}
}

func (w *walk) start(heard int64) {
	w.attempts++
	at := heard
	// The payload knows the newest start only. Two times by one clock are better
	// than one by the worker's and one by ours.
	newest := w.attempts == int64(w.now.Attempts) && w.now.Started > 0
	if newest && (!w.heard || heard == 0) {
		at = int64(w.now.Started)
	}
	if at == 0 {
		w.tally.unheard = true
	} else if w.runnable > 0 {
		w.tally.waits = append(w.tally.waits, float64(max(0, at-w.runnable))/1000)
	}
	w.runnable = 0
}
