package jobmetrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// jobOf makes a job; times are seconds after 1000 s.
func jobOf(s job.Status, attempts int64, enqueued, started, ended float64) *job.Job {
	return &job.Job{
		Status: s, Attempts: attempts, Started: ms(started), Ended: ms(ended),
		Enqueued: ms(enqueued), FirstRunnable: ms(enqueued), Runnable: ms(enqueued),
	}
}

func ms(seconds float64) int64 {
	if seconds == 0 {
		return 0
	}
	return int64(1e6 + seconds*1000)
}

func eventsOf(pairs ...any) []event {
	var events []event
	for i := 0; i < len(pairs); i += 2 {
		events = append(events, event{pairs[i].(job.Status), 1000 * ms(pairs[i+1].(float64))})
	}
	return events
}

func entryOf(s job.Status, attempts int64, enqueued, runnable, started float64) *entry {
	return &entry{Enqueued: ms(enqueued), Attempts: attempts, Status: s, Runnable: ms(runnable), Started: ms(started)}
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	retried := func(attempts int64, runnable float64) *job.Job {
		j := jobOf(job.Queued, attempts, 1, 0, 0)
		j.Runnable, j.Retried = ms(runnable), true
		return j
	}
	for name, c := range map[string]struct {
		old         *entry
		now         *job.Job
		events      []event
		jobs        int
		transitions string
		waits, runs []float64
		next        *entry
	}{
		"waiting": {
			now: jobOf(job.Queued, 0, 1, 0, 0), jobs: 1, transitions: "unknown>queued",
			next: entryOf(job.Queued, 0, 1, 1, 0),
		},
		"waiting as before": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: jobOf(job.Queued, 0, 1, 0, 0),
			next: entryOf(job.Queued, 0, 1, 1, 0),
		},
		"started": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: jobOf(job.Active, 1, 1, 4, 0),
			transitions: "queued>active", waits: []float64{3}, next: entryOf(job.Active, 1, 1, 0, 4),
		},
		"seen first when it has ended": {
			now: jobOf(job.Complete, 1, 1, 4, 9), jobs: 1,
			transitions: "unknown>queued queued>active active>complete", waits: []float64{3}, runs: []float64{5},
			next: entryOf(job.Complete, 1, 1, 0, 4),
		},
		"events delivered again after they were counted": {
			old: entryOf(job.Complete, 1, 1, 0, 4), now: jobOf(job.Complete, 1, 1, 4, 9),
			events: eventsOf(job.Active, 4., job.Complete, 9.), next: entryOf(job.Complete, 1, 1, 0, 4),
		},
		"retried and waiting": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: retried(1, 6), events: eventsOf(job.Queued, 6.),
			transitions: "active>queued", next: entryOf(job.Queued, 1, 1, 6, 0),
		},
		"retried and started between two looks": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Active, 2, 1, 8, 0),
			events:      eventsOf(job.Queued, 6., job.Active, 8.5),
			transitions: "active>queued queued>active", waits: []float64{2.5}, next: entryOf(job.Active, 2, 1, 0, 8),
		},
		"the same without events: the wait is not known": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Active, 2, 1, 8, 0),
			transitions: "active>queued queued>active", next: entryOf(job.Active, 2, 1, 0, 8),
		},
		"three attempts between two looks": {
			now:    jobOf(job.Failed, 3, 1, 30, 31),
			events: eventsOf(job.Active, 10., job.Active, 11., job.Queued, 12., job.Active, 20., job.Queued, 22., job.Active, 30., job.Failed, 31.),
			jobs:   1, transitions: "unknown>queued queued>active active>queued queued>active active>queued queued>active active>failed",
			waits: []float64{9, 8, 8}, runs: []float64{1}, next: entryOf(job.Failed, 3, 1, 0, 30),
		},
		"started and retried between two looks": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: retried(1, 6), events: eventsOf(job.Active, 4., job.Queued, 6.),
			transitions: "queued>active active>queued", waits: []float64{3}, next: entryOf(job.Queued, 1, 1, 6, 0),
		},
		"aborted while it waited": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: jobOf(job.Aborted, 0, 1, 0, 5),
			transitions: "queued>aborting aborting>aborted", next: entryOf(job.Aborted, 0, 1, 0, 0),
		},
		"being aborted": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Aborting, 1, 1, 4, 0),
			transitions: "active>aborting", next: entryOf(job.Aborting, 1, 1, 0, 4),
		},
		"aborted at last": {
			old: entryOf(job.Aborting, 1, 1, 0, 4), now: jobOf(job.Aborted, 1, 1, 4, 7),
			transitions: "aborting>aborted", runs: []float64{3}, next: entryOf(job.Aborted, 1, 1, 0, 4),
		},
		"swept and retried": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: retried(1, 9), events: eventsOf(job.Aborting, 8., job.Queued, 9.),
			transitions: "active>aborting aborting>queued", next: entryOf(job.Queued, 1, 1, 9, 0),
		},
		"swept before it was marked": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: retried(0, 9), events: eventsOf(job.Aborting, 8., job.Queued, 9.),
			transitions: "queued>aborting aborting>queued", next: entryOf(job.Queued, 0, 1, 9, 0),
		},
		"that delivered again": {
			old: entryOf(job.Queued, 0, 1, 9, 0), now: retried(0, 9), events: eventsOf(job.Aborting, 8., job.Queued, 9.),
			next: entryOf(job.Queued, 0, 1, 9, 0),
		},
		"retried by hand after its end": {
			old: entryOf(job.Failed, 1, 1, 0, 4), now: retried(1, 9), events: eventsOf(job.Queued, 9.),
			transitions: "failed>queued", next: entryOf(job.Queued, 1, 1, 9, 0),
		},
		"payload gone, with an event of the end": {
			old: entryOf(job.Active, 1, 1, 0, 4), events: eventsOf(job.Active, 4., job.Complete, 9.),
			transitions: "active>complete", runs: []float64{5}, next: entryOf(job.Complete, 1, 1, 0, 4),
		},
		"payload gone, waiting when it was last seen": {
			old: entryOf(job.Queued, 0, 1, 1, 0), events: eventsOf(job.Active, 4., job.Complete, 9.),
			transitions: "queued>active active>complete", waits: []float64{3}, runs: []float64{5},
			next: entryOf(job.Complete, 1, 1, 0, 4),
		},
		"payload gone, never seen: another database's job": {
			events: eventsOf(job.Active, 4., job.Complete, 9.),
		},
		"payload gone, ended before: another database's job": {
			old: entryOf(job.Complete, 1, 1, 0, 4), events: eventsOf(job.Active, 14., job.Complete, 19.),
			next: entryOf(job.Complete, 1, 1, 0, 4),
		},
		"payload gone, no event of an end": {
			old: entryOf(job.Active, 1, 1, 0, 4), events: eventsOf(job.Active, 4.), next: entryOf(job.Active, 1, 1, 0, 4),
		},
		"key in use again": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Active, 1, 10, 12, 0),
			events: eventsOf(job.Complete, 9., job.Active, 12.), jobs: 1,
			transitions: "active>complete unknown>queued queued>active", waits: []float64{2}, runs: []float64{5},
			next: entryOf(job.Active, 1, 10, 0, 12),
		},
		"key in use again, the first job's end counted before": {
			old: entryOf(job.Complete, 1, 1, 0, 4), now: jobOf(job.Queued, 0, 10, 0, 0), jobs: 1,
			transitions: "unknown>queued", next: entryOf(job.Queued, 0, 10, 10, 0),
		},
		"key in use three times between two looks: the queue keeps the last job only": {
			now:    jobOf(job.Complete, 1, 10, 12, 13),
			events: eventsOf(job.Active, 2., job.Complete, 3., job.Active, 5., job.Failed, 7., job.Active, 12., job.Complete, 13.),
			jobs:   1, transitions: "unknown>queued queued>active active>complete",
			waits: []float64{2}, runs: []float64{1}, next: entryOf(job.Complete, 1, 10, 0, 12),
		},
		"ended, and its key waits again": {
			now: jobOf(job.Queued, 0, 10, 0, 0), events: eventsOf(job.Active, 2., job.Complete, 3.), jobs: 1,
			transitions: "unknown>queued", next: entryOf(job.Queued, 0, 10, 10, 0),
		},
		"waited, ended, and its key waits again": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: jobOf(job.Queued, 0, 10, 0, 0), events: eventsOf(job.Active, 2., job.Complete, 3.),
			jobs: 1, transitions: "queued>active active>complete unknown>queued", waits: []float64{1}, runs: []float64{1},
			next: entryOf(job.Queued, 0, 10, 10, 0),
		},
		"swept, and started at once": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Active, 2, 1, 9.002, 0),
			events:      eventsOf(job.Active, 4., job.Aborting, 9., job.Queued, 9.001, job.Active, 9.002),
			transitions: "active>aborting aborting>queued queued>active", waits: []float64{0.001}, next: entryOf(job.Active, 2, 1, 0, 9.002),
		},
		"swept twice, and started at once": {
			now:    jobOf(job.Active, 3, 1, 9, 0),
			events: eventsOf(job.Queued, 1., job.Active, 2., job.Aborting, 3., job.Queued, 4., job.Active, 5., job.Aborting, 6., job.Aborted, 6.5, job.Queued, 7., job.Active, 9.),
			jobs:   1, transitions: "unknown>queued queued>active active>aborting aborting>queued queued>active active>aborting aborting>aborted aborted>queued queued>active",
			waits: []float64{1, 1, 2}, next: entryOf(job.Active, 3, 1, 0, 9),
		},
		"swept before it was marked, and started at once": {
			old: entryOf(job.Queued, 0, 1, 1, 0), now: jobOf(job.Active, 1, 1, 9, 0),
			events:      eventsOf(job.Aborting, 7., job.Queued, 8., job.Active, 9.),
			transitions: "queued>aborting aborting>queued queued>active", waits: []float64{1}, next: entryOf(job.Active, 1, 1, 0, 9),
		},
		"swept and started at once, the event of the start to come": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Active, 2, 1, 9.5, 0),
			events:      eventsOf(job.Aborting, 8., job.Queued, 9.),
			transitions: "active>aborting aborting>queued queued>active", waits: []float64{0.5}, next: entryOf(job.Active, 2, 1, 0, 9.5),
		},
		"retried twice, swept the second time only": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: jobOf(job.Complete, 3, 1, 12, 13),
			events:      eventsOf(job.Queued, 6., job.Active, 7., job.Aborting, 8., job.Queued, 9., job.Active, 12., job.Complete, 13.),
			transitions: "active>queued queued>active active>aborting aborting>queued queued>active active>complete", waits: []float64{1, 3}, runs: []float64{1},
			next: entryOf(job.Complete, 3, 1, 0, 12),
		},
		"retried by hand, all between two looks": {
			now: jobOf(job.Complete, 2, 1, 12, 13), events: eventsOf(job.Active, 2., job.Failed, 3., job.Queued, 5., job.Active, 12., job.Complete, 13.),
			jobs: 1, transitions: "unknown>queued queued>active active>queued queued>active active>complete",
			waits: []float64{1, 7}, runs: []float64{1}, next: entryOf(job.Complete, 2, 1, 0, 12),
		},
		"fewer attempts than before: Redis lost some": {
			old: entryOf(job.Active, 3, 1, 0, 4), now: jobOf(job.Active, 2, 1, 4, 0), next: entryOf(job.Active, 3, 1, 0, 4),
		},
		"swept though its worker lived, which ended it first": {
			old: entryOf(job.Active, 1, 1, 0, 4), now: retried(1, 9), events: eventsOf(job.Aborting, 8., job.Aborted, 8.5, job.Queued, 9.),
			transitions: "active>aborting aborting>aborted aborted>queued", next: entryOf(job.Queued, 1, 1, 9, 0),
		},
	} {
		next, got := advance(c.old, c.now, c.events)
		var transitions string
		for i, tr := range got.transitions {
			if i > 0 {
				transitions += " "
			}
			transitions += fmt.Sprintf("%s>%s", tr.from, tr.to)
		}
		if len(got.jobs) != c.jobs || transitions != c.transitions || !slices.Equal(got.waits, c.waits) || !slices.Equal(got.runs, c.runs) {
			t.Errorf("%s: got %d jobs, %q, waits %v, runs %v; want %d, %q, %v, %v", name,
				len(got.jobs), transitions, got.waits, got.runs, c.jobs, c.transitions, c.waits, c.runs)
		}
		if want := strings.Contains(name, "without events"); got.incomplete != want {
			t.Errorf("%s: incomplete %v, want %v", name, got.incomplete, want)
		}
		if next == nil || c.next == nil {
			if next != c.next {
				t.Errorf("%s: entry %+v, want %+v", name, next, c.next)
			}
			continue
		}
		next.Event = 0 // is put to the test by events that are delivered again
		if *next != *c.next {
			t.Errorf("%s: entry %+v, want %+v", name, *next, *c.next)
		}
	}
}

// TestAdvanceAfterATakeover: a replica that takes over has the events that the one before counted. Of a key that many jobs have
// used, it counts those after what the ledger knows, and no others.
func TestAdvanceAfterATakeover(t *testing.T) {
	t.Parallel()
	var events []event
	var e *entry
	counted := 0
	for i := range 12 {
		at := 10 * float64(i+1)
		events = append(events, eventsOf(job.Active, at+1, job.Complete, at+2)...)
		if i == 10 {
			continue // nobody counts this one in its time, and its key is used again
		}
		seen := events[len(events)-2:] // by the one that counts
		if i == 11 {
			seen = events // by the one that has taken over
		}
		var got tally
		e, got = advance(e, jobOf(job.Complete, 1, at, at+1, at+2), seen)
		counted += len(got.jobs)
	}
	if counted != 11 {
		t.Errorf("%d jobs counted, want 11", counted)
	}
	e, got := advance(e, jobOf(job.Queued, 0, 200, 0, 0), nil)
	if len(got.jobs) != 1 {
		t.Errorf("%d jobs counted of one that waits, want 1", len(got.jobs))
	}
	if _, got = advance(e, jobOf(job.Queued, 0, 300, 0, 0), events); len(got.jobs) != 1 {
		t.Errorf("%d jobs counted of the one after it, want 1", len(got.jobs))
	}
}

// TestAdvanceUpdateByTheEnqueuer: SAQ lets the enqueuer write his own copy of a job, in which nothing was attempted yet.
func TestAdvanceUpdateByTheEnqueuer(t *testing.T) {
	t.Parallel()
	var all []transition
	var e *entry
	for _, now := range []*job.Job{
		jobOf(job.Active, 1, 1, 4, 0), jobOf(job.Active, 0, 1, 0, 0), jobOf(job.Complete, 1, 1, 4, 9),
	} {
		var got tally
		e, got = advance(e, now, nil)
		all = append(all, got.transitions...)
	}
	want := []transition{{job.Unknown, job.Queued}, {job.Queued, job.Active}, {job.Active, job.Complete}}
	if !slices.Equal(all, want) {
		t.Errorf("counted %v, want %v", all, want)
	}
}
