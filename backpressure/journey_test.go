package backpressure

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// payloadOf makes a job; times are seconds after 1000 s.
func payloadOf(s status, attempts, queued, started, completed float64) *job {
	j := &job{Started: ms(started), Completed: ms(completed)}
	j.Status, j.Attempts, j.Queued = string(s), attempts, ms(queued)
	return j
}

func ms(seconds float64) float64 {
	if seconds == 0 {
		return 0
	}
	return 1e6 + seconds*1000
}

func spoken(pairs ...any) []word {
	var words []word
	for i := 0; i < len(pairs); i += 2 {
		words = append(words, word{pairs[i].(status), 1000 * int64(ms(pairs[i+1].(float64)))})
	}
	return words
}

func entryOf(s status, attempts int64, queued, runnable, started float64) *entry {
	return &entry{Queued: int64(ms(queued)), Attempts: attempts, Status: s, Runnable: int64(ms(runnable)), Started: int64(ms(started))}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	retried := func(attempts, touched float64) *job {
		j := payloadOf(statusQueued, attempts, 1, 0, 0)
		j.Touched, j.Error = ms(touched), "why"
		return j
	}
	for name, c := range map[string]struct {
		old         *entry
		now         *job
		words       []word
		jobs        int
		transitions string
		waits, runs []float64
		next        *entry
	}{
		"waiting": {
			now: payloadOf(statusQueued, 0, 1, 0, 0), jobs: 1, transitions: "unknown>queued",
			next: entryOf(statusQueued, 0, 1, 1, 0),
		},
		"waiting as before": {
			old: entryOf(statusQueued, 0, 1, 1, 0), now: payloadOf(statusQueued, 0, 1, 0, 0),
			next: entryOf(statusQueued, 0, 1, 1, 0),
		},
		"started": {
			old: entryOf(statusQueued, 0, 1, 1, 0), now: payloadOf(statusActive, 1, 1, 4, 0),
			transitions: "queued>active", waits: []float64{3}, next: entryOf(statusActive, 1, 1, 0, 4),
		},
		"seen first when it has ended": {
			now: payloadOf(statusComplete, 1, 1, 4, 9), jobs: 1,
			transitions: "unknown>queued queued>active active>complete", waits: []float64{3}, runs: []float64{5},
			next: entryOf(statusComplete, 1, 1, 0, 4),
		},
		"heard again after it was counted": {
			old: entryOf(statusComplete, 1, 1, 0, 4), now: payloadOf(statusComplete, 1, 1, 4, 9),
			words: spoken(statusActive, 4., statusComplete, 9.), next: entryOf(statusComplete, 1, 1, 0, 4),
		},
		"retried and waiting": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: retried(1, 6), words: spoken(statusQueued, 6.),
			transitions: "active>queued", next: entryOf(statusQueued, 1, 1, 6, 0),
		},
		"retried and started between two looks": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: payloadOf(statusActive, 2, 1, 8, 0),
			words:       spoken(statusQueued, 6., statusActive, 8.5),
			transitions: "active>queued queued>active", waits: []float64{2.5}, next: entryOf(statusActive, 2, 1, 0, 8),
		},
		"the same unheard: the wait is not known": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: payloadOf(statusActive, 2, 1, 8, 0),
			transitions: "active>queued queued>active", next: entryOf(statusActive, 2, 1, 0, 8),
		},
		"three attempts between two looks": {
			now:   payloadOf(statusFailed, 3, 1, 30, 31),
			words: spoken(statusActive, 10., statusActive, 11., statusQueued, 12., statusActive, 20., statusQueued, 22., statusActive, 30., statusFailed, 31.),
			jobs:  1, transitions: "unknown>queued queued>active active>queued queued>active active>queued queued>active active>failed",
			waits: []float64{9, 8, 8}, runs: []float64{1}, next: entryOf(statusFailed, 3, 1, 0, 30),
		},
		"started and retried between two looks": {
			old: entryOf(statusQueued, 0, 1, 1, 0), now: retried(1, 6), words: spoken(statusActive, 4., statusQueued, 6.),
			transitions: "queued>active active>queued", waits: []float64{3}, next: entryOf(statusQueued, 1, 1, 6, 0),
		},
		"aborted while it waited": {
			old: entryOf(statusQueued, 0, 1, 1, 0), now: payloadOf(statusAborted, 0, 1, 0, 5),
			transitions: "queued>aborting aborting>aborted", next: entryOf(statusAborted, 0, 1, 0, 0),
		},
		"being aborted": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: payloadOf(statusAborting, 1, 1, 4, 0),
			transitions: "active>aborting", next: entryOf(statusAborting, 1, 1, 0, 4),
		},
		"aborted at last": {
			old: entryOf(statusAborting, 1, 1, 0, 4), now: payloadOf(statusAborted, 1, 1, 4, 7),
			transitions: "aborting>aborted", runs: []float64{3}, next: entryOf(statusAborted, 1, 1, 0, 4),
		},
		"swept and retried": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: retried(1, 9), words: spoken(statusAborting, 8., statusQueued, 9.),
			transitions: "active>aborting aborting>queued", next: entryOf(statusQueued, 1, 1, 9, 0),
		},
		"swept before it was marked": {
			old: entryOf(statusQueued, 0, 1, 1, 0), now: retried(0, 9), words: spoken(statusAborting, 8., statusQueued, 9.),
			transitions: "queued>aborting aborting>queued", next: entryOf(statusQueued, 0, 1, 9, 0),
		},
		"that heard again": {
			old: entryOf(statusQueued, 0, 1, 9, 0), now: retried(0, 9), words: spoken(statusAborting, 8., statusQueued, 9.),
			next: entryOf(statusQueued, 0, 1, 9, 0),
		},
		"retried by hand after its end": {
			old: entryOf(statusFailed, 1, 1, 0, 4), now: retried(1, 9), words: spoken(statusQueued, 9.),
			transitions: "failed>queued", next: entryOf(statusQueued, 1, 1, 9, 0),
		},
		"payload gone, end heard": {
			old: entryOf(statusActive, 1, 1, 0, 4), words: spoken(statusActive, 4., statusComplete, 9.),
			transitions: "active>complete", runs: []float64{5}, next: entryOf(statusComplete, 1, 1, 0, 4),
		},
		"payload gone, waiting when it was last seen": {
			old: entryOf(statusQueued, 0, 1, 1, 0), words: spoken(statusActive, 4., statusComplete, 9.),
			transitions: "queued>active active>complete", waits: []float64{3}, runs: []float64{5},
			next: entryOf(statusComplete, 1, 1, 0, 4),
		},
		"payload gone, never seen": {
			words: spoken(statusActive, 4., statusComplete, 9.), jobs: 1,
			transitions: "unknown>queued queued>active active>complete", runs: []float64{5},
			next: &entry{Attempts: 1, Status: statusComplete, Started: int64(ms(4))},
		},
		"payload gone, nothing of an end heard": {
			old: entryOf(statusActive, 1, 1, 0, 4), words: spoken(statusActive, 4.), next: entryOf(statusActive, 1, 1, 0, 4),
		},
		"key in use again": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: payloadOf(statusActive, 1, 10, 12, 0),
			words: spoken(statusComplete, 9., statusActive, 12.), jobs: 1,
			transitions: "active>complete unknown>queued queued>active", waits: []float64{2}, runs: []float64{5},
			next: entryOf(statusActive, 1, 10, 0, 12),
		},
		"key in use again, the first job's end counted before": {
			old: entryOf(statusComplete, 1, 1, 0, 4), now: payloadOf(statusQueued, 0, 10, 0, 0), jobs: 1,
			transitions: "unknown>queued", next: entryOf(statusQueued, 0, 10, 10, 0),
		},
		"key in use three times between two looks": {
			now:   payloadOf(statusComplete, 1, 10, 12, 13),
			words: spoken(statusActive, 2., statusComplete, 3., statusActive, 5., statusFailed, 7., statusActive, 12., statusComplete, 13.),
			jobs:  3, transitions: "unknown>queued queued>active active>complete unknown>queued queued>active active>failed unknown>queued queued>active active>complete",
			waits: []float64{2}, runs: []float64{1, 2, 1}, next: entryOf(statusComplete, 1, 10, 0, 12),
		},
		"ended, and its key waits again": {
			now: payloadOf(statusQueued, 0, 10, 0, 0), words: spoken(statusActive, 2., statusComplete, 3.), jobs: 2,
			transitions: "unknown>queued queued>active active>complete unknown>queued", runs: []float64{1},
			next: entryOf(statusQueued, 0, 10, 10, 0),
		},
		"retried by hand, all between two looks": {
			now: payloadOf(statusComplete, 2, 1, 12, 13), words: spoken(statusActive, 2., statusFailed, 3., statusQueued, 5., statusActive, 12., statusComplete, 13.),
			jobs: 1, transitions: "unknown>queued queued>active active>queued queued>active active>complete",
			waits: []float64{1, 7}, runs: []float64{1}, next: entryOf(statusComplete, 2, 1, 0, 12),
		},
		"fewer attempts than before: Redis lost some": {
			old: entryOf(statusActive, 3, 1, 0, 4), now: payloadOf(statusActive, 2, 1, 4, 0), next: entryOf(statusActive, 3, 1, 0, 4),
		},
		"swept though its worker lived, which ended it first": {
			old: entryOf(statusActive, 1, 1, 0, 4), now: retried(1, 9), words: spoken(statusAborting, 8., statusAborted, 8.5, statusQueued, 9.),
			transitions: "active>aborting aborting>aborted aborted>queued", next: entryOf(statusQueued, 1, 1, 9, 0),
		},
	} {
		next, got := follow(c.old, c.now, c.words)
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
		if want := strings.Contains(name, "unheard"); got.unheard != want {
			t.Errorf("%s: unheard %v, want %v", name, got.unheard, want)
		}
		next.Heard = 0 // is put to the test by what is heard again
		if *next != *c.next {
			t.Errorf("%s: entry %+v, want %+v", name, *next, *c.next)
		}
	}
}

// TestFollowAfterATakeover: a replica that takes over has heard what the one before counted. Of a key that many jobs have
// used, it counts those after what the ledger knows, and no others.
func TestFollowAfterATakeover(t *testing.T) {
	t.Parallel()
	var words []word
	var e *entry
	counted := 0
	for i := range 12 {
		at := 10 * float64(i+1)
		words = append(words, spoken(statusActive, at+1, statusComplete, at+2)...)
		if i == 10 {
			continue // nobody counts this one in its time
		}
		heard := words[len(words)-2:] // by the one that counts
		if i == 11 {
			heard = words // by the one that has taken over
		}
		var got tally
		e, got = follow(e, payloadOf(statusComplete, 1, at, at+1, at+2), heard)
		counted += len(got.jobs)
	}
	if counted != 12 {
		t.Errorf("%d jobs counted, want 12", counted)
	}
	e, got := follow(e, payloadOf(statusQueued, 0, 200, 0, 0), nil)
	if len(got.jobs) != 1 {
		t.Errorf("%d jobs counted of one that waits, want 1", len(got.jobs))
	}
	if _, got = follow(e, payloadOf(statusQueued, 0, 300, 0, 0), words); len(got.jobs) != 1 {
		t.Errorf("%d jobs counted of the one after it, want 1", len(got.jobs))
	}
	// One whose payload is not kept, of a key that was used before.
	e = &entry{Queued: 1, Attempts: 1, Status: statusComplete, Heard: words[len(words)-1].at}
	if _, got = follow(e, nil, append(words, spoken(statusActive, 500., statusComplete, 501.)...)); len(got.jobs) != 1 || len(got.runs) != 1 {
		t.Errorf("counted %+v of a job that is kept nowhere, want it once", got)
	}
}

// TestFollowUpdateByTheEnqueuer: SAQ lets the enqueuer write his own copy of a job, in which nothing was attempted yet.
func TestFollowUpdateByTheEnqueuer(t *testing.T) {
	t.Parallel()
	var all []transition
	var e *entry
	for _, now := range []*job{
		payloadOf(statusActive, 1, 1, 4, 0), payloadOf(statusActive, 0, 1, 0, 0), payloadOf(statusComplete, 1, 1, 4, 9),
	} {
		var got tally
		e, got = follow(e, now, nil)
		all = append(all, got.transitions...)
	}
	want := []transition{{statusUnknown, statusQueued}, {statusQueued, statusActive}, {statusActive, statusComplete}}
	if !slices.Equal(all, want) {
		t.Errorf("counted %v, want %v", all, want)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	for kwargs, want := range map[string]string{
		`{"source":"api"}`: "api", `{"source":"cron"}`: "other", `{"source":7}`: "other", `{"source":["api"]}`: "other",
		`{"source":""}`: "unknown", `{"source":null}`: "unknown", `{}`: "unknown", `null`: "unknown",
	} {
		j := parseJob(`{"queue":"q","status":"queued","kwargs":`+kwargs+`}`, "q")
		if j == nil {
			t.Errorf("%s: not read", kwargs)
		} else if got := j.source(Sources{"api"}); got != want {
			t.Errorf("%s: source %q, want %q", kwargs, got, want)
		}
	}
	if j := parseJob(`{"queue":"q","status":"queued"}`, "q"); j == nil || j.source(nil) != "unknown" {
		t.Errorf("without kwargs: %+v", j)
	}
}

// TestParseJobOfPython: its json module writes what JSON does not have.
func TestParseJobOfPython(t *testing.T) {
	t.Parallel()
	const text = `{"queue":"q","status":"complete","queued":1000,"kwargs":{"source":"NaN, \"Infinity\" \\","lr":Infinity},"result":[NaN,-Infinity,{"NaN":NaN}]}`
	if j := parseJob(text, "q"); j == nil || j.Queued != 1000 || j.source(Sources{`NaN, "Infinity" \`}) != `NaN, "Infinity" \` {
		t.Errorf("read as %+v", j)
	}
	if since, ok := runnableSince(`{"queued":1000,"kwargs":{"x":NaN}}`); !ok || since != 1000 {
		t.Errorf("runnable since %v, %v", since, ok)
	}
}

func TestParseJobRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "no JSON", `{"queue":"other","status":"queued"}`, `{"queue":"q","status":"new"}`, `{"queue":"q"}`, `[]`,
		`{"queue":"q","status":"paused"}`,
	} {
		if j := parseJob(text, "q"); j != nil {
			t.Errorf("%q was read as %+v", text, *j)
		}
	}
}
