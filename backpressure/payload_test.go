package backpressure

import (
	"strings"
	"testing"
	"time"
)

func TestRunnableSince(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		text string
		want float64
		ok   bool
	}{
		"enqueued":                 {`{"queued":1700000000123}`, 1700000000123, true},
		"float":                    {`{"queued":1700000000123.0}`, 1700000000123, true},
		"scheduled in seconds":     {`{"queued":1700000000000,"scheduled":1700000100}`, 1700000100000, true},
		"scheduled float":          {`{"queued":1700000000000,"scheduled":1700000100.5}`, 1700000100500, true},
		"enqueued after scheduled": {`{"queued":1700000200000,"scheduled":1700000100}`, 1700000200000, true},
		"touched":                  {`{"queued":1700000000000,"touched":1700000005000}`, 1700000005000, true},
		"only touched":             {`{"touched":1700000005000}`, 1700000005000, true},

		"retry":                      {retry(`"attempts":1`), 5000, true},
		"retry after a delay":        {retry(`"attempts":1,"retry_delay":2.5`), 7500, true},
		"delay of a first attempt":   {retry(`"retry_delay":2.5`), 5000, true},
		"swept before an attempt":    {retry(`"error":"swept","retry_delay":2.5`), 7500, true},
		"not waiting":                {`{"touched":5000,"attempts":1,"retry_delay":2,"status":"active"}`, 5000, true},
		"negative delay":             {retry(`"attempts":1,"retry_delay":-2`), 5000, true},
		"backoff, first":             {retry(`"attempts":1,"retry_delay":2,"retry_backoff":true`), 7000, true},
		"backoff, third":             {retry(`"attempts":3,"retry_delay":2,"retry_backoff":true`), 13000, true},
		"backoff up to a bound":      {retry(`"attempts":3,"retry_delay":2,"retry_backoff":5.5`), 10500, true},
		"backoff below its bound":    {retry(`"attempts":2,"retry_delay":2,"retry_backoff":60`), 9000, true},
		"backoff off":                {retry(`"attempts":3,"retry_delay":2,"retry_backoff":false`), 7000, true},
		"backoff without a delay":    {retry(`"attempts":9999,"retry_backoff":true`), 5000, true},
		"backoff of an unknown kind": {retry(`"attempts":3,"retry_delay":2,"retry_backoff":"x"`), 7000, true},

		"nothing":           {``, 0, false},
		"not JSON":          {`\x80\x04pickle`, 0, false},
		"cut off":           {`{"queued":17000`, 0, false},
		"not an object":     {`[1]`, 0, false},
		"null":              {`null`, 0, false},
		"no times":          {`{"function":"run"}`, 0, false},
		"text for a number": {`{"queued":"1700000000123"}`, 0, false},
		"list for a number": {`{"queued":[1]}`, 0, false},
		"too great":         {`{"queued":1e999}`, 0, false},
		"negative":          {`{"queued":-5}`, 0, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := runnableSince(tc.text)
			if ok != tc.ok || ok && got != tc.want {
				t.Errorf("since %v, %v, want %v, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

// retry is a job enqueued at 1 s and touched at 5 s.
func retry(fields string) string {
	return `{"queued":1000,"touched":5000,"status":"queued",` + fields + `}`
}

func TestOldestAge(t *testing.T) {
	t.Parallel()
	const now = 1_700_000_000_000
	good := `{"queued":1699999990000}` // 10 s old
	cases := map[string]struct {
		pending int64
		heads   []any
		age     time.Duration
		known   bool
	}{
		"nothing waits":       {0, nil, 0, true},
		"head":                {2, []any{good, `{"queued":1}`}, 10 * time.Second, true},
		"missing head":        {2, []any{nil, good}, 10 * time.Second, true},
		"unreadable head":     {3, []any{"garbage", `{"queued":"x"}`, good}, 10 * time.Second, true},
		"timeless head":       {2, []any{`{}`, good}, 10 * time.Second, true},
		"all missing":         {20, make([]any, headLimit), 0, false},
		"no answer":           {1, nil, 0, false},
		"clock ahead":         {1, []any{`{"queued":1700000009999}`}, 0, true},
		"delay without limit": {1, []any{`{"queued":1,"touched":1,"attempts":1e9,"retry_delay":1,"retry_backoff":true,"status":"queued"}`}, 0, true},
		"huge kwargs":         {1, []any{`{"kwargs":{"x":"` + strings.Repeat("a", 1<<20) + `"},"queued":1699999990000}`}, 10 * time.Second, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			age, known := oldestAge(tc.pending, tc.heads, now)
			if age != tc.age || known != tc.known {
				t.Errorf("age %s, %v, want %s, %v", age, known, tc.age, tc.known)
			}
		})
	}
}
