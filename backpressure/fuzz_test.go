package backpressure

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzFollow: whatever payloads, ledger and words say, the changes form an
// unbroken way to where the payload is, waits are not negative, and seeing and
// hearing all of it again counts nothing.
func FuzzFollow(f *testing.F) {
	statuses := []status{statusQueued, statusActive, statusAborting, statusAborted, statusFailed, statusComplete}
	f.Add([]byte(`{"queue":"q","status":"complete","queued":1000,"started":2000,"completed":3000,"attempts":1}`), []byte{}, false, int64(0), int64(0), uint8(0))
	f.Add([]byte(`{"queue":"q","status":"active","queued":1000,"started":2000,"attempts":3}`), []byte{0, 1, 0, 1}, true, int64(1000), int64(1), uint8(1))
	f.Add([]byte(`{"queue":"q","status":"queued","queued":1000,"error":"swept","touched":5000}`), []byte{2, 0}, true, int64(1000), int64(0), uint8(0))
	f.Add([]byte(`{"queue":"q","status":"active","queued":9000,"attempts":1}`), []byte{1, 5, 1, 4, 1}, true, int64(1000), int64(1), uint8(1))
	f.Add([]byte(`gone`), []byte{1, 5}, true, int64(1000), int64(0), uint8(0))
	f.Add([]byte(`{"queue":"q","status":"queued","queued":1e300,"attempts":1e300,"retry_delay":-1,"retry_backoff":true}`), []byte{}, false, int64(0), int64(0), uint8(0))
	f.Fuzz(func(t *testing.T, payload, heard []byte, counted bool, queued, attempts int64, at uint8) {
		now := parseJob(string(payload), "q")
		var old *entry
		if counted {
			old = &entry{Queued: queued, Attempts: attempts, Status: statuses[int(at)%len(statuses)]}
		}
		var words []word
		for i, b := range heard[:min(len(heard), 50)] {
			words = append(words, word{status: statuses[int(b)%len(statuses)], at: int64(i + 1)})
		}

		next, got := follow(old, now, words)
		if now == nil && old == nil && next == nil {
			if len(got.jobs)+len(got.transitions) > 0 {
				t.Fatalf("counted %+v of nothing", got)
			}
			return
		}
		from := statusUnknown
		if old != nil {
			from = old.Status
		}
		jobs := 0
		for i, tr := range got.transitions {
			if tr.from == statusUnknown {
				jobs++
			} else if tr.from != from {
				t.Fatalf("change %d comes from %s, the one before went to %s: %v", i, tr.from, from, got.transitions)
			}
			if !tr.to.known() {
				t.Fatalf("change %d goes to %q", i, tr.to)
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
		again, more := follow(next, now, words)
		if len(more.jobs)+len(more.transitions)+len(more.waits)+len(more.runs) > 0 || !reflect.DeepEqual(again, next) {
			t.Fatalf("seen again: counted %+v, entry %+v, want nothing and %+v", more, again, next)
		}
	})
}

// FuzzPayload: whatever stands in a payload, an age is a time and never negative.
func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"queued":1700000000000}`))
	f.Add([]byte(`{"queued":1700000000000,"scheduled":1700000001,"touched":1700000002000,"status":"queued","attempts":2,"retry_delay":3,"retry_backoff":4}`))
	f.Add([]byte(`{"queued":-1e308,"touched":1e308,"retry_backoff":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if age, known := oldestAge(1, []any{string(text), nil, string(bytes.ToUpper(text))}, 1700000000000); age < 0 || (!known && age != 0) {
			t.Fatalf("age %v, known %v", age, known)
		}
	})
}

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
