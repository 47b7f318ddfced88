package jobmetrics

import (
	"reflect"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// FuzzAdvance: whatever queue, ledger and events say, the transitions form an
// unbroken way to where the job is, times are not negative, and seeing all of it
// again counts nothing.
func FuzzAdvance(f *testing.F) {
	statuses := []job.Status{job.Queued, job.Active, job.Aborting, job.Aborted, job.Failed, job.Complete}
	f.Add(uint8(5), int64(1000), int64(1), int64(2000), int64(3000), true, []byte{}, false, int64(0), int64(0), uint8(0))
	f.Add(uint8(1), int64(1000), int64(3), int64(2000), int64(0), true, []byte{0, 1, 0, 1}, true, int64(1000), int64(1), uint8(1))
	f.Add(uint8(0), int64(1000), int64(0), int64(0), int64(0), true, []byte{2, 0}, true, int64(1000), int64(0), uint8(0))
	f.Add(uint8(1), int64(9000), int64(1), int64(0), int64(0), true, []byte{1, 5, 1, 4, 1}, true, int64(1000), int64(1), uint8(1))
	f.Add(uint8(1), int64(1000), int64(3), int64(0), int64(0), true, []byte{1, 2, 0, 1, 2, 3, 0, 1}, true, int64(1000), int64(1), uint8(1))
	f.Add(uint8(0), int64(0), int64(0), int64(0), int64(0), false, []byte{1, 5}, true, int64(1000), int64(1), uint8(0))
	f.Fuzz(func(t *testing.T, status uint8, enqueued, attempts, started, ended int64, there bool, seen []byte, counted bool, oldEnqueued, oldAttempts int64, oldStatus uint8) {
		const most = 1e15 // what a queue may say, see package job
		var now *job.Job
		if there {
			now = &job.Job{
				Status: statuses[int(status)%len(statuses)], Enqueued: clamp(enqueued, most), FirstRunnable: clamp(enqueued, most),
				Runnable: clamp(enqueued, most) + 5, Retried: attempts%2 == 1, Attempts: clamp(attempts, 1e9), Started: clamp(started, most), Ended: clamp(ended, most),
			}
		}
		var old *entry
		if counted {
			old = &entry{Enqueued: clamp(oldEnqueued, most), Attempts: clamp(oldAttempts, 1e9), Status: statuses[int(oldStatus)%len(statuses)]}
		}
		var events []event
		for i, b := range seen[:min(len(seen), 50)] {
			events = append(events, event{status: statuses[int(b)%len(statuses)], at: int64(i + 1)})
		}

		next, got := advance(old, now, events)
		if now == nil && old == nil {
			if next != nil || len(got.jobs)+len(got.transitions) > 0 {
				t.Fatalf("counted %+v of nothing", got)
			}
			return
		}
		from := job.Unknown
		if old != nil {
			from = old.Status
		}
		jobs := 0
		for i, tr := range got.transitions {
			if tr.from == job.Unknown {
				jobs++
			} else if tr.from != from {
				t.Fatalf("transition %d comes from %s, the one before went to %s: %v", i, tr.from, from, got.transitions)
			}
			if !tr.to.Known() {
				t.Fatalf("transition %d goes to %q", i, tr.to)
			}
			from = tr.to
		}
		if from != next.Status {
			t.Fatalf("the way ends at %s, the entry says %s: %v", from, next.Status, got.transitions)
		}
		if jobs != len(got.jobs) {
			t.Fatalf("%d jobs, %d of them come from unknown", len(got.jobs), jobs)
		}
		for _, s := range append(got.waits, got.runs...) {
			if s < 0 || s != s {
				t.Fatalf("a time of %v s", s)
			}
		}
		again, more := advance(next, now, events)
		if len(more.jobs)+len(more.transitions)+len(more.waits)+len(more.runs) > 0 || !reflect.DeepEqual(again, next) {
			t.Fatalf("seen again: counted %+v, entry %+v, want nothing and %+v", more, again, next)
		}
	})
}

func clamp(v, most int64) int64 { return min(max(0, v), most) }

// FuzzSources: a list that is taken comes back the same.
func FuzzSources(f *testing.F) {
	for _, s := range []string{"", "api,assistant", " a ,,b", "other", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again Sources
		if s.UnmarshalText([]byte(text)) != nil || s.validate() != nil {
			return
		}
		if again.UnmarshalText([]byte(s.String())) != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%q comes back as %q", s, again)
		}
	})
}
