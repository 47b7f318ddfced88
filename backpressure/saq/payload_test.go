package saq

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// put stores payloads as waiting jobs and returns their ids.
func put(t *testing.T, rdb redis.Cmdable, q *Queue, texts ...string) []string {
	t.Helper()
	var ids []string
	for _, text := range texts {
		id := fmt.Sprintf("saq:job:%s:%d", q.name, rdb.LLen(t.Context(), q.queuedKey()).Val())
		must(t, rdb.Set(t.Context(), id, text, 0).Err())
		must(t, rdb.RPush(t.Context(), q.queuedKey(), id).Err())
		must(t, rdb.ZAdd(t.Context(), q.incompleteKey(), redis.Z{Member: id}).Err())
		ids = append(ids, id)
	}
	return ids
}

// readOne reads the payload under the key of a job.
func readOne(t *testing.T, rdb *redis.Client, q *Queue, text string) job.Reading {
	t.Helper()
	id := "saq:job:" + q.name + ":0"
	must(t, rdb.Set(t.Context(), id, text, 0).Err())
	r, err := q.Read(t.Context(), []job.Lookup{{ID: id}})
	must(t, err)
	return r[0]
}

// payload is a SAQ payload. Fields stand in SAQ's order, as JSON; empty ones are left
// out.
type payload struct{ kwargs, more, result, err, meta string }

func (p payload) text(queue, key, status string) string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, `, "%s": %s`, name, value)
		}
	}
	b.WriteString(`{"function": "train"`)
	field("kwargs", p.kwargs)
	fmt.Fprintf(&b, `, "queue": "%s", "key": "%s", "timeout": 0, "retries": 3%s`, queue, key, p.more)
	field("result", p.result)
	field("error", p.err)
	fmt.Fprintf(&b, `, "status": "%s"`, status)
	field("meta", p.meta)
	return b.String() + "}"
}

// TestRunnable: since when a job could run is the same for the age of the queue and
// for the wait that is counted.
func TestRunnable(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := New("q", rdb)
	retry := func(fields string) string { return `"queued":1000,"touched":5000,"status":"queued",` + fields }
	for name, c := range map[string]struct {
		fields string
		want   int64 // ms; 0: the fields don't tell
	}{
		"enqueued":                       {`"queued":1700000000123`, 1700000000123},
		"float":                          {`"queued":1700000000123.0`, 1700000000123},
		"scheduled in seconds":           {`"queued":1700000000000,"scheduled":1700000100`, 1700000100000},
		"scheduled float":                {`"queued":1700000000000,"scheduled":1700000100.5`, 1700000100500},
		"enqueued after scheduled":       {`"queued":1700000200000,"scheduled":1700000100`, 1700000200000},
		"updated while it waits":         {`"queued":1700000000000,"touched":1700000005000,"meta":{"position":3}`, 1700000000000},
		"retry":                          {retry(`"attempts":1`), 5000},
		"retry after a delay":            {retry(`"attempts":1,"retry_delay":2.5`), 7500},
		"update before a first attempt":  {retry(`"retry_delay":2.5`), 1000},
		"swept before an attempt":        {retry(`"error":"swept","retry_delay":2.5`), 7500},
		"negative delay":                 {retry(`"attempts":1,"retry_delay":-2`), 5000},
		"backoff, first":                 {retry(`"attempts":1,"retry_delay":2,"retry_backoff":true`), 7000},
		"backoff, third":                 {retry(`"attempts":3,"retry_delay":2,"retry_backoff":true`), 13000},
		"backoff up to a bound":          {retry(`"attempts":3,"retry_delay":2,"retry_backoff":5.5`), 10500},
		"backoff below its bound":        {retry(`"attempts":2,"retry_delay":2,"retry_backoff":60`), 9000},
		"backoff off":                    {retry(`"attempts":3,"retry_delay":2,"retry_backoff":false`), 7000},
		"backoff without a delay":        {retry(`"attempts":9999,"retry_backoff":true`), 5000},
		"backoff of an unknown kind":     {retry(`"attempts":3,"retry_delay":2,"retry_backoff":"x"`), 7000},
		"NaN and Infinity beside it":     {`"kwargs":{"x":NaN,"y":[Infinity,-Infinity]},"queued":5000`, 5000},
		"half a surrogate pair":          {`"kwargs":{"x":"\ud83d \\\\ud83d"},"queued":5000`, 5000},
		"enqueued again after its end":   {`"queued":9000,"touched":5000,"completed":6000,"attempts":1,"error":"x","retry_delay":3`, 9000},
		"times that are no times":        {`"queued":"1700000000123","scheduled":[1],"touched":{}`, 0},
		"no times":                       {`"function":"run"`, 0},
		"negative":                       {`"queued":-5`, 0},
		"too great for any time":         {`"queued":1e400`, 1e15},
		"a delay too great for any time": {retry(`"attempts":1000000000,"retry_delay":1e300,"retry_backoff":true`), 5000 + maxSeconds*1000},
	} {
		r := readOne(t, rdb, q, `{"queue":"q","key":"0","status":"queued",`+c.fields+`}`)
		if r.Job == nil {
			t.Errorf("%s: not read", name)
			continue
		}
		if r.Job.Runnable != c.want {
			t.Errorf("%s: runnable since %d, want %d", name, r.Job.Runnable, c.want)
		}
		must(t, rdb.Del(t.Context(), q.queuedKey()).Err())
		must(t, rdb.RPush(t.Context(), q.queuedKey(), "saq:job:q:0").Err())
		before := redisMillis(t, rdb)
		s, err := q.Sample(t.Context(), nil, false)
		must(t, err)
		low, high := max(0, before-c.want), max(0, redisMillis(t, rdb)-c.want)
		if age := s.OldestAge.Milliseconds(); s.AgeKnown != (c.want != 0) || s.AgeKnown && (age < low || age > high) {
			t.Errorf("%s: age %d ms (known: %v), want %d to %d", name, age, s.AgeKnown, low, high)
		}
	}
}

// TestReadNothing: what is no payload of the queue is no job.
func TestReadNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := New("q", rdb)
	for _, text := range []string{
		"no JSON", "\x80\x04pickle", `{"queue":"q","queued":17000`, "[1]", "null", `"text"`, "7",
		`{"queue":"other","status":"queued"}`, `{"queue":"q","status":"new"}`, `{"queue":"q"}`, `{"queue":"q","status":"paused"}`,
		`{"queue":["q"],"status":["queued"]}`,
		`{"queue":"other","status":"queued","kwargs":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`,
	} {
		if r := readOne(t, rdb, q, text); !r.Exists || r.Job != nil {
			t.Errorf("%.80q: read as %+v, want that it exists and is no job", text, r)
		}
	}
	must(t, rdb.HSet(t.Context(), "hash", "a", "b").Err())
	r, err := q.Read(t.Context(), []job.Lookup{{ID: "hash"}, {ID: "nothing"}, {ID: "hash", OnlyExists: true}, {ID: "nothing", OnlyExists: true}})
	must(t, err)
	if !r[0].Exists || r[0].Job != nil || r[1].Exists || !r[2].Exists || r[3].Exists {
		t.Errorf("read %+v, want only the first and the third to exist, and no job", r)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := New("q", rdb)
	large := strings.Repeat("x", 1<<20)
	for kwargs, want := range map[string]string{
		`{"source": "api"}`: "api", `{"source": 7}`: job.SourceOther, `{"source": ["api"]}`: job.SourceOther, `{"source": {"source": "x"}}`: job.SourceOther,
		`{"source": ""}`: "", `{"source": null}`: "", `{}`: "", `{"deep": {"source": "x"}}`: "", ``: "",
		`{"source": "api", "x": "` + large + `"}`:                          "api",
		`{"deep": {"source": "x"}, "source": "api", "x": "` + large + `"}`: "api",
		`{"deep": {"source": "x"}, "x": "` + large + `"}`:                  "",
		`{"text": "\"source\": \"x\"", "x": "` + large + `"}`:              "",
		`{"x": "` + large + `", "source": "api"}`:                          "", // too far from the beginning
		`{"source":"api","x":"` + large + `"}`:                             "api",
	} {
		r := readOne(t, rdb, q, payload{kwargs: kwargs, more: `, "queued": 1`}.text("q", "0", "queued"))
		if r.Job == nil || r.Job.Source != want {
			t.Errorf("%.80s: %+v, want source %q", kwargs, r.Job, want)
		}
	}
}

// TestLargePayloads: wherever a payload is large, and whatever it says there, the
// job's own fields are read, or none are.
func TestLargePayloads(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	q := New("q", rdb)
	fake := `"queue": "q", "key": "0", "attempts": 7, "queued": 9, "status": "failed", "meta": {}`
	quoted := strings.ReplaceAll(fake, `"`, `\"`)
	fields := `, "attempts": 1, "queued": 1000, "started": 2000, "touched": 5000`
	for _, size := range []int{0, 900, 5000, 40_000, 1 << 20} {
		large := strings.Repeat("x", size)
		for name, p := range map[string]payload{
			"kwargs":           {kwargs: `{"a": {` + fake + `}, "x": "` + large + `", "b": [{` + fake + `}], "c": "` + quoted + `"}`},
			"result":           {result: `{"a": {` + fake + `}, "x": "` + large + `", "b": [{` + fake + `}], "c": "` + quoted + `"}`},
			"error":            {err: `"` + quoted + large + quoted + `\\"`},
			"meta":             {meta: `{"a": {` + fake + `}, "x": "` + large + `", "b": [{` + fake + `}], "c": "` + quoted + `"}`},
			"result and meta":  {result: `"r"`, meta: `{"x": "` + large + `"}`},
			"error and meta":   {err: `"e"`, meta: `{"x": "` + large + `", "a": [{"status": "x"}, {"status": "y"}]}`},
			"kwargs and error": {kwargs: `{"x": "` + large + `"}`, err: `"` + large + `"`},
			"kwargs and meta":  {kwargs: `{"x": "` + large + `"}`, meta: `{"x": "` + large + `"}`},
		} {
			p.more = fields
			r := readOne(t, rdb, q, p.text("q", "0", "active"))
			bothEnds := strings.Contains(name, " and ") && size > 8192
			switch {
			case bothEnds && r.Job == nil && r.Exists:
			case r.Job == nil:
				t.Errorf("%s of %d bytes: not read", name, size)
			case r.Job.Status != job.Active || r.Job.Attempts != 1 || r.Job.Enqueued != 1000 || r.Job.Started != 2000:
				t.Errorf("%s of %d bytes: read as %+v", name, size, *r.Job)
			}
		}
	}
	// Several jobs of which one small look is not enough are read in one call too.
	var lookups []job.Lookup
	some := strings.Repeat("x", 1500)
	for i := range 20 {
		id := fmt.Sprint("saq:job:q:some", i)
		text := payload{kwargs: `{"x": "` + some + `"}`, result: `{"x": "` + some + `"}`, more: fields}.text("q", fmt.Sprint("some", i), "complete")
		must(t, rdb.Set(t.Context(), id, text, 0).Err())
		lookups = append(lookups, job.Lookup{ID: id})
	}
	readings, err := q.Read(t.Context(), lookups)
	must(t, err)
	for i, r := range readings {
		if r.Job == nil || r.Job.Started != 2000 {
			t.Errorf("job %d of 20 with 1.5 KB in kwargs and result: read as %+v", i, r)
		}
	}
	// Nothing but the end is known where kwargs and result are large.
	large := `{"x": "` + strings.Repeat("x", 1<<20) + `"}`
	if r := readOne(t, rdb, q, payload{kwargs: large, result: large, more: fields}.text("q", "0", "complete")); r.Status != job.Complete {
		t.Errorf("read %+v, want the status", r)
	}
}

// TestAdmitCountsEveryNewJob: whatever SAQ can store in kwargs and meta, a job that
// comes in counts as the one that was admitted.
func TestAdmitCountsEveryNewJob(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	for name, p := range map[string]payload{
		"none":                   {},
		"error":                  {kwargs: `{"error": 1}`},
		"nested":                 {kwargs: `{"metrics": {"error": 1}}`, meta: `{"a": [{"attempts": 3}]}`},
		"attempts":               {kwargs: `{"attempts": 3}`, meta: `{"attempts": 3}`},
		"scheduled":              {kwargs: `{"scheduled": false}`, meta: `{"scheduled": 5, "error": "x"}`},
		"escaped quotes":         {kwargs: `{"x": "\", \"error\": 1, \"attempts\": 3, \\"}`, meta: `{"x": "\"scheduled\": 1}}\\\\"}`},
		"half a surrogate pair":  {kwargs: `{"x": "\ud83d"}`, meta: `{"x": "\\\ud83d"}`},
		"large kwargs":           {kwargs: `{"error": "` + strings.Repeat("x", 1<<20) + `"}`},
		"large meta":             {meta: `{"error": "` + strings.Repeat("x", 1<<20) + `"}`},
		"large kwargs, meta":     {kwargs: `{"x": "` + strings.Repeat("x", 1<<20) + `"}`, meta: `{"error": "` + strings.Repeat("x", 7_000) + `"}`},
		"kwargs, large meta":     {kwargs: `{"x": "` + strings.Repeat("x", 7_000) + `"}`, meta: `{"error": "` + strings.Repeat("x", 1<<20) + `"}`},
		"a copy of the job":      {kwargs: `{"job": {"queue": "q", "key": "0", "attempts": 3, "status": "queued"}}`, meta: `{"job": {"queue": "q", "key": "0", "attempts": 3}}`},
		"both large":             {kwargs: `{"x": "` + strings.Repeat("x", 20_000) + `"}`, meta: `{"x": "` + strings.Repeat("x", 20_000) + `"}`},
		"two copies in meta":     {kwargs: `{"x": "` + strings.Repeat("x", 9_000) + `"}`, meta: `{"jobs": [{"queue": "two-copies-in-meta", "key": "1"}, {"queue": "two-copies-in-meta", "key": "2"}]}`},
		"enqueued again":         {more: `, "attempts": 1, "completed": 5, "started": 3, "touched": 4, "queued": 9`, err: `"Traceback"`},
		"nested deep":            {kwargs: `{"x": ` + strings.Repeat("[", 900) + strings.Repeat("]", 900) + `}`, meta: `{"x": ` + strings.Repeat("[", 900) + strings.Repeat("]", 900) + `}`},
		"many fields of the job": {kwargs: `{"x": [` + strings.Repeat(`{"queue": "q", "key": "0", "error": "x"}, `, 2000) + `1]}`},
	} {
		q := New(strings.ReplaceAll(name, " ", "-"), rdb)
		if p.more == "" {
			p.more = `, "queued": 1`
		}
		count := 0
		for i := range limit {
			if !admits(t, q, longWindow) {
				break
			}
			count++
			put(t, rdb, q, p.text(q.name, fmt.Sprint(i), "queued"))
		}
		if count != limit {
			t.Errorf("%s: %d of %d admitted", name, count, limit)
		}
		if admits(t, q, longWindow) {
			t.Errorf("%s: one more was admitted", name)
		}
	}
}

// TestAdmitKnowsReturnedJobs: a job that comes back, or becomes due, is not the one
// that was admitted, however large it is.
func TestAdmitKnowsReturnedJobs(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	for _, size := range []int{0, 5000, 1 << 20} {
		large := strings.Repeat("x", size)
		for name, p := range map[string]payload{
			"retried":   {more: `, "attempts": 1, "queued": 1, "touched": 2`, err: `"Traceback ` + large + `"`},
			"swept":     {more: `, "queued": 1, "touched": 2`, err: `"swept"`},
			"scheduled": {more: `, "scheduled": 5, "queued": 1`},
		} {
			p.kwargs = `{"x": "` + large + `"}`
			q := New(fmt.Sprint(name, size), rdb)
			put(t, rdb, q, payload{more: `, "queued": 1`}.text(q.name, "waiting", "queued"))
			var ids []string
			for i := range 20 { // held by workers, or not due yet
				id := fmt.Sprintf("saq:job:%s:back%d", q.name, i)
				must(t, rdb.Set(t.Context(), id, p.text(q.name, fmt.Sprint("back", i), "queued"), 0).Err())
				must(t, rdb.ZAdd(t.Context(), q.incompleteKey(), redis.Z{Member: id}).Err())
				ids = append(ids, id)
			}
			if got := admitted(t, q, 19); got != 19 {
				t.Fatalf("%d admitted beside one job, want 19", got)
			}
			for _, id := range ids {
				must(t, rdb.RPush(t.Context(), q.queuedKey(), id).Err())
			}
			if got := admitted(t, q, 5); got != 0 {
				t.Errorf("%s, %d bytes: %d admitted beside 21 jobs, of which 20 came back, and 19 on their way, want 0", name, size, got)
			}
		}
	}
}

// FuzzPayload: random JSON in kwargs, result and meta of a job. The fields that are
// read are the job's own, of a large payload too.
func FuzzPayload(f *testing.F) {
	rdb := redistest.Start(f).Client(f)
	q := New("q", rdb)
	for seed := range uint64(40) {
		f.Add(seed, uint16(seed*200))
	}
	f.Fuzz(func(t *testing.T, seed uint64, size uint16) {
		random := rand.New(rand.NewPCG(seed, 3))
		kwargs, meta := randomObject(random, int(size)), randomObject(random, random.IntN(2000))
		text := payload{kwargs: kwargs, meta: meta, more: `, "attempts": 1, "queued": 1000, "touched": 5000`}.text("q", "0", "queued")
		if !json.Valid([]byte(text)) {
			t.Fatalf("made no JSON: %s", text)
		}
		r := readOne(t, rdb, q, text)
		if r.Job == nil || r.Job.Attempts != 1 || r.Job.Enqueued != 1000 || r.Job.Runnable != 5000 || r.Job.Status != job.Queued {
			t.Fatalf("read as %+v: %s", r.Job, text)
		}
	})
}

// randomObject is a JSON object of about so many bytes, full of what could be
// mistaken for fields of a job.
func randomObject(random *rand.Rand, size int) string {
	words := []string{
		"queue", "q", "key", "0", "attempts", "error", "status", "failed", "queued", "meta", "source", `\"`, `\\`, `", "`, "{", "}", "]", "[", ":", ", ",
		`"queue": "q", "key": "0", "attempts": 9}`, "\u00e9", "\x00",
	}
	var value func(depth int) any
	used := 0
	word := func() string {
		w := words[random.IntN(len(words))]
		used += len(w) + 4
		return w
	}
	value = func(depth int) any {
		if used > size || depth > 6 {
			return random.IntN(1000)
		}
		switch random.IntN(5) {
		case 0:
			list := []any{}
			for range random.IntN(6) {
				list = append(list, value(depth+1))
			}
			return list
		case 1:
			object := map[string]any{}
			for range random.IntN(6) {
				object[word()] = value(depth + 1)
			}
			return object
		case 2:
			return nil
		default:
			return word() + word()
		}
	}
	object := map[string]any{}
	for used < size {
		object[fmt.Sprint(word(), used)] = value(0)
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// TestCostDoesNotDependOnSize: the time that Redis takes for one look, one admission
// and one reading is within a factor of two from 1 KiB to 4 MiB a job. Whatever a
// client or the API puts into a job, a call takes less than 5000 times a STRLEN does,
// which is one or two milliseconds (ordinary jobs: a tenth of that). The best of many calls is compared, since the machine
// is shared.
func TestCostDoesNotDependOnSize(t *testing.T) {
	rdb := redistest.Start(t).Client(t)
	fakes := func(size int) string { return strings.Repeat(`{"queue": "q", "key": "0", "status": "x"}, `, size/43) }
	for name, c := range map[string]struct {
		of   func(size int) payload
		same bool // for any size; otherwise at most the bound
	}{
		"kwargs": {func(size int) payload { return payload{kwargs: `{"x": "` + strings.Repeat("x", size) + `"}`} }, true},
		"surrogates": {func(size int) payload {
			return payload{meta: `{"y": "\ud800", "x": [` + fakes(size) + `1]}`}
		}, false},
		"meta": {func(size int) payload { return payload{meta: `{"x": "` + strings.Repeat("x", size) + `"}`} }, true},
		"kwargs and meta": {func(size int) payload {
			return payload{kwargs: `{"x": "` + strings.Repeat("x", size) + `"}`, meta: `{"x": "` + strings.Repeat("x", size) + `"}`}
		}, false},
		"kwargs and meta that look like jobs": {func(size int) payload {
			return payload{kwargs: `{"x": [` + fakes(size) + `1]}`, meta: `{"x": [` + fakes(size) + `1]}`}
		}, false},
	} {
		for _, jobs := range []int{16, 64} {
			small, large := costs{}, costs{}
			var wrong []string
			// The least of more calls is nearer to the truth where others use the processors.
			for rounds := 0; rounds == 0 || len(wrong) > 0 && rounds < 5; rounds++ {
				small = small.least(measure(t, rdb, jobs, c.of(1<<10)))
				large = large.least(measure(t, rdb, jobs, c.of(4<<20)))
				wrong = compare(small, large, c.same)
			}
			t.Logf("%d jobs, %s: 1 KiB: %v; 4 MiB: %v", jobs, name, small, large)
			for _, w := range wrong {
				t.Errorf("%d jobs, %s: %s", jobs, name, w)
			}
		}
	}
}

// compare lists what costs too much.
func compare(small, large costs, same bool) (wrong []string) {
	for what, at4MiB := range large.times {
		if at1KiB := small.times[what]; same && at4MiB > 2*at1KiB {
			wrong = append(wrong, fmt.Sprintf("%s: %v with 1 KiB, %v with 4 MiB, want twice at most", what, at1KiB, at4MiB))
		}
		if at4MiB > 5000*large.strlen {
			wrong = append(wrong, fmt.Sprintf("%s: %v with 4 MiB, want less than 5000 times the %v of a STRLEN", what, at4MiB, large.strlen))
		}
	}
	return wrong
}

// costs are times of Redis.
type costs struct {
	times  map[string]time.Duration
	strlen time.Duration // of one STRLEN in a script
}

// least is the lesser of both for each call.
func (c costs) least(o costs) costs {
	if c.times == nil {
		return o
	}
	for what, took := range c.times {
		o.times[what] = min(took, o.times[what])
	}
	o.strlen = min(c.strlen, o.strlen)
	return o
}

func (c costs) String() string { return fmt.Sprintf("%v, STRLEN %v", c.times, c.strlen) }

// measure returns the least times for calls about jobs with this payload.
func measure(t *testing.T, rdb *redis.Client, jobs int, p payload) costs {
	t.Helper()
	must(t, rdb.FlushDB(t.Context()).Err())
	q := New("q", rdb)
	put(t, rdb, q, payload{more: `, "queued": 1000`}.text("q", "0", "queued"))
	if !admits(t, q, longWindow) { // the others stand behind this job then
		t.Fatal("a queue with one job is full")
	}
	p.more = `, "queued": 1000`
	// Redis makes the payloads, which differ by the key only: together they can have 256 MiB.
	before, after, _ := strings.Cut(p.text("q", "KEY", "queued"), "KEY")
	must(t, rdb.Eval(t.Context(), `for i = 1, tonumber(ARGV[1]) do
	  local id = 'saq:job:q:' .. i
	  redis.call('SET', id, ARGV[2] .. i .. ARGV[3])
	  redis.call('RPUSH', KEYS[1], id)
	  redis.call('ZADD', KEYS[2], 0, id)
	end return 1`, []string{q.queuedKey(), q.incompleteKey()}, jobs, before, after).Err())
	var lookups []job.Lookup
	for i := range min(readJobs, jobs) {
		lookups = append(lookups, job.Lookup{ID: fmt.Sprint("saq:job:q:", i+1)})
	}
	window := rdb.HGetAll(t.Context(), q.windowKey()).Val()
	_, err := q.Read(t.Context(), lookups) // Redis knows the script from now on
	must(t, err)
	c := costs{times: map[string]time.Duration{}}
	least := func(what, command string, f func() error) {
		took := redisTime(t, rdb, command, func() { must(t, f()) })
		if old, ok := c.times[what]; !ok || took < old {
			c.times[what] = took
		}
	}
	for range 40 {
		least("look", "eval", func() error {
			_, err := q.Sample(t.Context(), nil, false)
			return err
		})
		must(t, rdb.HSet(t.Context(), q.windowKey(), window).Err())
		must(t, rdb.HSet(t.Context(), q.windowKey(), "flight", jobs, "count", jobs).Err())
		least("admission", "evalsha", func() error {
			_, err := q.Admit(t.Context(), backpressure.Place{Limit: 1000}, longWindow)
			return err
		})
		least("reading", "evalsha", func() error {
			_, err := q.Read(t.Context(), lookups)
			return err
		})
		least("strlen", "eval", func() error {
			return rdb.Eval(t.Context(), "for i = 1, 1000 do redis.call('STRLEN', KEYS[1]) end return 1", []string{"saq:job:q:0"}).Err()
		})
	}
	c.strlen = c.times["strlen"] / 1000
	delete(c.times, "strlen")
	return c
}

// redisTime is the time that Redis spent in a command while f ran, for each call.
func redisTime(t *testing.T, rdb *redis.Client, command string, f func()) time.Duration {
	t.Helper()
	spent := func() (calls, usec int64) {
		info, err := rdb.Info(t.Context(), "commandstats").Result()
		must(t, err)
		for line := range strings.Lines(info) {
			if n, _ := fmt.Sscanf(line, "cmdstat_"+command+":calls=%d,usec=%d,", &calls, &usec); n == 2 {
				return calls, usec
			}
		}
		return 0, 0
	}
	callsBefore, before := spent()
	f()
	calls, usec := spent()
	return time.Duration(usec-before) * time.Microsecond / time.Duration(max(1, calls-callsBefore))
}
