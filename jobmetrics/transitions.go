package jobmetrics

import (
	"slices"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// entry is what has been counted of a job. The ledger keeps it as JSON.
type entry struct {
	Enqueued int64      `json:"q"` // ms: tells a job from an earlier one with the same id
	Attempts int64      `json:"a"`
	Status   job.Status `json:"s"`
	Runnable int64      `json:"r,omitempty"` // ms: since when the job waits; 0 unless it is queued
	Started  int64      `json:"b,omitempty"` // ms: newest start
	Event    int64      `json:"h,omitempty"` // µs: arrival of the newest event that was taken into account
	Missing  int64      `json:"g,omitempty"` // ms: since when the queue has nothing under the id; 0: it has
}

// event is a status that the queue published for one job.
type event struct {
	status job.Status
	at     int64 // µs: arrival, by this process's clock
}

func (e event) millis() int64 { return e.at / 1000 }

// tally is what there is to count.
type tally struct {
	jobs        []*job.Job // seen for the first time
	transitions []transition
	waits, runs []float64 // seconds
	incomplete  bool      // a time is missing that only an event could tell
}

type transition struct{ from, to job.Status }

func (t *tally) add(o tally) {
	t.jobs = append(t.jobs, o.jobs...)
	t.transitions = append(t.transitions, o.transitions...)
	t.waits = append(t.waits, o.waits...)
	t.runs = append(t.runs, o.runs...)
	t.incomplete = t.incomplete || o.incomplete
}

// advance compares what has been counted of a job (nil: nothing) with what the
// queue keeps of it (nil: nothing, or nothing that can be read). It returns the
// entry for the ledger and what there is to count.
//
// A transition that nobody saw is inferred: a job waits before it starts, each
// attempt is a start, and an abort has two steps. Events add what the queue
// forgets: an abort before a retry, and the times of earlier attempts. An event
// proves no job, since a job with the same id in another database of the same
// Redis publishes on the same channel.
//
// An event that was taken into account when the entry was written only tells
// times, so events may be delivered twice.
func advance(old *entry, now *job.Job, events []event) (*entry, tally) {
	var t tally
	unseen := newer(old, events)
	if now == nil {
		if now = infer(old, unseen); now == nil {
			return old, tally{}
		}
	}
	if old != nil && old.Enqueued != now.Enqueued {
		t, unseen = endEarlier(old, unseen)
		old, events = nil, unseen
	}
	w := walk{now: now, status: job.Unknown}
	if old == nil {
		t.jobs = append(t.jobs, now)
	} else {
		w.status, w.attempts, w.runnable = old.Status, old.Attempts, old.Runnable
	}
	steps := path(old, now, unseen)
	for i, at := range arrivals(steps, events) {
		w.step(steps[i], at, i == len(steps)-1)
	}
	t.add(w.tally)
	return nextEntry(old, now, events, len(steps) > 0), t
}

// nextEntry is what has been counted once the tally of advance is. moved says that
// the job has made a transition.
func nextEntry(old *entry, now *job.Job, events []event, moved bool) *entry {
	next := &entry{Enqueued: now.Enqueued, Attempts: now.Attempts, Status: now.Status, Started: now.Started}
	if old != nil {
		// The enqueuer's own copy of the job may take attempts back.
		next.Attempts, next.Event = max(next.Attempts, old.Attempts), old.Event
	}
	// Progress is published again and again; it is not worth a write each time.
	if len(events) > 0 && (moved || next.Status.Final()) {
		next.Event = max(next.Event, events[len(events)-1].at)
	}
	if next.Status == job.Queued {
		next.Runnable = now.Runnable
	}
	return next
}

// newer returns the events that arrived after those taken into account in e.
func newer(e *entry, events []event) []event {
	if e == nil {
		return events
	}
	return slices.DeleteFunc(slices.Clone(events), func(v event) bool { return v.at <= e.Event })
}

// endEarlier counts the end of the job of old, whose id another job uses now, if
// an event told of the end. It returns the events that came after.
func endEarlier(old *entry, events []event) (t tally, rest []event) {
	end := slices.IndexFunc(events, func(v event) bool { return v.status.Final() })
	if old.Status.Final() || end < 0 {
		return tally{}, events
	}
	if ended := infer(old, events[:end+1]); ended != nil {
		_, t = advance(old, ended, events[:end+1])
	}
	return t, events[end+1:]
}

func contains(events []event, s job.Status) bool {
	return slices.ContainsFunc(events, func(v event) bool { return v.status == s })
}

// infer makes up what the queue would keep of a job that was counted before, that
// has ended since by the newest event, and of which the queue keeps nothing. It
// returns nil for any other job.
func infer(old *entry, events []event) *job.Job {
	if old == nil || old.Status.Final() || len(events) == 0 || !events[len(events)-1].status.Final() {
		return nil
	}
	last := events[len(events)-1]
	j := &job.Job{
		Status: last.status, Ended: last.millis(),
		Enqueued: old.Enqueued, FirstRunnable: old.Enqueued, Attempts: old.Attempts, Started: old.Started,
	}
	start := slices.IndexFunc(events, func(v event) bool { return v.status == job.Active })
	if old.Status == job.Queued && (start >= 0 || last.status != job.Aborted) {
		j.Attempts++
		j.Started = 0
		if start >= 0 {
			j.Started = events[start].millis()
		}
	}
	return j
}

// maxInferred bounds the starts that are inferred for one job at a time.
const maxInferred = 1000

// path lists the statuses on the way from old to now.
func path(old *entry, now *job.Job, events []event) []job.Status {
	at, starts := job.Queued, now.Attempts
	var steps []job.Status
	if old == nil {
		steps = append(steps, job.Queued)
	} else {
		at, starts = old.Status, max(starts, old.Attempts)-old.Attempts
	}
	waits, rest := splitByStart(events, now.Status)
	starts = min(starts, maxInferred)
	for i := range starts {
		var wait []event // before this start
		if k := int64(len(waits)) - starts + i; k >= 0 {
			wait = waits[k]
		}
		swept := sweep(wait)
		steps = append(steps, swept...)
		if at != job.Queued || len(swept) > 0 {
			steps = append(steps, job.Queued)
		}
		steps = append(steps, job.Active)
		at = job.Active
	}

	end := now.Status
	swept := sweep(rest)
	switch {
	case end == job.Aborted && at != job.Aborting && at != job.Aborted:
		steps = append(steps, job.Aborting, end)
	case end == job.Queued && at == job.Active:
		steps = append(append(steps, swept...), end)
	case end != at:
		steps = append(steps, end)
	case end == job.Queued && starts <= 0 && now.Retried && len(swept) > 0 && (old == nil || now.Runnable > old.Runnable):
		// A worker took the job and was gone before it marked the job active.
		steps = append(steps, job.Aborting, end)
	}
	return steps
}

// splitByStart returns the events before each start of an attempt, and those after
// the last start. now is the status that the job has.
func splitByStart(events []event, now job.Status) (waits [][]event, rest []event) {
	rest = events
	for {
		start := slices.IndexFunc(rest, func(v event) bool { return v.status == job.Active })
		if start < 0 {
			break
		}
		waits = append(waits, rest[:start])
		for start < len(rest) && rest[start].status == job.Active { // progress repeats the status
			start++
		}
		rest = rest[start:]
	}
	// The queue may know of a start whose event is still to come.
	if now != job.Queued && contains(rest, job.Queued) {
		waits, rest = append(waits, rest), nil
	}
	return waits, rest
}

// sweep returns the steps of a sweep: the queue aborts an attempt whose worker is
// gone before it gives the job back. A worker that still lives ends the job first.
func sweep(events []event) []job.Status {
	if !contains(events, job.Aborting) {
		return nil
	}
	if contains(events, job.Aborted) {
		return []job.Status{job.Aborting, job.Aborted}
	}
	return []job.Status{job.Aborting}
}

// arrivals returns for each step when its event arrived, in ms; 0 if none did. The
// newest events belong to the last steps. A status that is published again and
// again is one step, begun with the first event.
func arrivals(steps []job.Status, events []event) []int64 {
	events = slices.CompactFunc(slices.Clone(events), func(a, b event) bool { return a.status == b.status })
	times := make([]int64, len(steps))
	for i := len(steps) - 1; i >= 0; i-- {
		for k, v := range slices.Backward(events) {
			if v.status == steps[i] {
				times[i] = v.millis()
				events = events[:k]
				break
			}
		}
	}
	return times
}

// walk goes along a path and collects what there is to count.
type walk struct {
	now *job.Job

	status    job.Status
	attempts  int64
	runnable  int64 // ms; 0: not known
	fromEvent bool  // runnable is by this process's clock
	tally     tally
}

// step makes one transition. arrival is that of its event in ms, or 0.
func (w *walk) step(to job.Status, arrival int64, last bool) {
	w.tally.transitions = append(w.tally.transitions, transition{w.status, to})
	switch {
	case to == job.Queued:
		w.wait(arrival, last)
	case to == job.Active:
		w.start(arrival)
	case to.Final() && w.now.Started > 0 && w.now.Ended > 0:
		w.tally.runs = append(w.tally.runs, float64(max(0, w.now.Ended-w.now.Started))/1000)
	}
	w.status = to
}

func (w *walk) wait(arrival int64, last bool) {
	w.runnable, w.fromEvent = 0, false
	switch {
	case last:
		w.runnable = w.now.Runnable
	case w.status == job.Unknown:
		w.runnable = w.now.FirstRunnable
	case arrival > 0:
		w.runnable, w.fromEvent = arrival, true
		if w.now.RetryDelay != nil {
			w.runnable += w.now.RetryDelay(w.attempts).Milliseconds()
		}
	default:
		w.tally.incomplete = true
	}
}

func (w *walk) start(arrival int64) {
	w.attempts++
	at := arrival
	// The queue keeps the newest start only. Two times by one clock are better than
	// one by the worker's and one by this process's.
	newest := w.attempts == w.now.Attempts && w.now.Started > 0
	if newest && (!w.fromEvent || arrival == 0) {
		at = w.now.Started
	}
	if at == 0 {
		w.tally.incomplete = true
	} else if w.runnable > 0 {
		w.tally.waits = append(w.tally.waits, float64(max(0, at-w.runnable))/1000)
	}
	w.runnable = 0
}
