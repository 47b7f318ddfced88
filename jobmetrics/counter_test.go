package jobmetrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/condition"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/internal/saqtest"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

const (
	jobsQueue     = "training"
	jobPrefix     = "saq:job:training:"
	incompleteKey = "saq:training:incomplete"
)

// account is what SAQ did.
type account struct {
	Enqueued    map[string]float64 `json:"enqueued"`
	Transitions map[string]float64 `json:"transitions"` // "from>to"
	Waits       float64            `json:"waits"`
	WaitSeconds float64            `json:"wait_seconds"`
	Runs        float64            `json:"runs"`
	RunSeconds  float64            `json:"run_seconds"`
	Kept        times              `json:"kept"` // what SAQ's payloads still tell
}

type times struct {
	Waits       float64 `json:"waits"`
	WaitSeconds float64 `json:"wait_seconds"`
	Runs        float64 `json:"runs"`
	RunSeconds  float64 `json:"run_seconds"`
}

// runWorkload lets real SAQ enqueue, run, retry, abort and sweep jobs.
func runWorkload(t *testing.T, server *redistest.Server, jobs int, kinds ...string) account {
	t.Helper()
	args := []string{"testdata/saq_workload.py", server.URL(), jobsQueue, fmt.Sprint(jobs), "0"}
	if len(kinds) > 0 {
		args = append(args, strings.Join(kinds, ","))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, saqtest.Python(t), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run SAQ: %v\n%s", err, &stderr)
	}
	var a account
	if err := json.Unmarshal(bytes.TrimPrefix(out, []byte("ready\n")), &a); err != nil {
		t.Fatalf("read what SAQ did: %v in %s", err, out)
	}
	return a
}

// counter is a Counter and what it counted.
type counter struct {
	*Counter

	reg  *prometheus.Registry
	stop func() // returns when Run has
}

var _ Queue = (*saq.Queue)(nil)

// unstarted is a counter whose steps the test takes.
func unstarted(rdb redis.UniversalClient) *counter {
	reg := prometheus.NewRegistry()
	queue := saq.New(jobsQueue, rdb)
	cfg := Config{Sources: Sources{"api", "assistant"}}
	return &counter{Counter: New(cfg, jobsQueue, queue, rdb, reg, slog.New(slog.DiscardHandler)), reg: reg}
}

func startCounter(t *testing.T, rdb redis.UniversalClient) *counter {
	t.Helper()
	c := unstarted(rdb)
	c.run(t)
	return c
}

// run runs c until it is stopped or the test ends.
func (c *counter) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		done <- nil
	}
	t.Cleanup(c.stop)
}

func (c *counter) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	return metrictest.Value(t, c.reg, name, labels...)
}

// counted is what the counter says, in SAQ's terms.
func (c *counter) counted(t *testing.T) account {
	t.Helper()
	a := account{Enqueued: map[string]float64{}, Transitions: map[string]float64{}}
	families, err := c.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			switch f.GetName() {
			case "refrakt_job_enqueued_total":
				a.Enqueued[label["source"]] = m.GetCounter().GetValue()
			case "refrakt_job_status_transitions_total":
				if v := m.GetCounter().GetValue(); v > 0 {
					a.Transitions[label["from_status"]+">"+label["to_status"]] = v
				}
			case "refrakt_job_queue_wait_seconds":
				a.Waits, a.WaitSeconds = float64(m.GetHistogram().GetSampleCount()), m.GetHistogram().GetSampleSum()
			case "refrakt_job_run_duration_seconds":
				a.Runs, a.RunSeconds = float64(m.GetHistogram().GetSampleCount()), m.GetHistogram().GetSampleSum()
			}
		}
	}
	return a
}

// wantCounted waits until exactly what SAQ did is counted. Sources are as the
// gate calls them.
func wantCounted(t *testing.T, c *counter, want account) {
	t.Helper()
	named := map[string]float64{"api": 0, "assistant": 0, "other": 0, "unknown": 0}
	for source, n := range want.Enqueued {
		if _, known := named[source]; !known {
			source = "other"
		}
		named[source] += n
	}
	text := func(a account, enqueued map[string]float64) string {
		return fmt.Sprint("enqueued ", enqueued, " transitions ", a.Transitions, " waits ", a.Waits, " runs ", a.Runs)
	}
	var got account
	defer func() {
		if t.Failed() {
			t.Errorf("counted %s\nwant    %s", text(got, got.Enqueued), text(want, named))
		}
	}()
	polltest.True(t, "all counted", func() bool {
		got = c.counted(t)
		return text(got, got.Enqueued) == text(want, named)
	})
	// A wait that begins or ends with an event is off by as long as the event takes.
	if diff := math.Abs(got.WaitSeconds - want.WaitSeconds); diff > 0.05*want.Waits {
		t.Errorf("waits sum to %.3f s, want %.3f", got.WaitSeconds, want.WaitSeconds)
	}
	if diff := math.Abs(got.RunSeconds - want.RunSeconds); diff > 0.05*want.Runs {
		t.Errorf("runs sum to %.3f s, want %.3f", got.RunSeconds, want.RunSeconds)
	}
}

func TestJobsCountWhatSAQDid(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := startCounter(t, server.Client(t))
	polltest.True(t, "leading", func() bool { return c.value(t, "refrakt_gate_job_counter_leader") == 1 })
	want := runWorkload(t, server, 160)
	wantCounted(t, c, want)

	// Going through all again, without events, finds nothing new.
	c.events.markGap()
	ctx := t.Context()
	c.stop()
	c.token = ""
	for range 20 {
		if err := c.step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wantCounted(t, c, want)
}

// TestJobsCatchUp: what happened while no replica was there is counted from the
// payloads, each attempt included.
func TestJobsCatchUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	first := startCounter(t, rdb)
	polltest.True(t, "begun", func() bool { return first.value(t, "refrakt_gate_job_counter_leader") == 1 })
	first.stop()

	// Less the kinds that leave no trace: payloads that are not kept, and an abort before a retry.
	want := runWorkload(t, server, 80,
		"short", "failing", "retried", "delayed", "scheduled", "progressing", "waiting abort", "scheduled abort", "running abort", "sourceless", "odd source")
	second := startCounter(t, rdb)
	// SAQ keeps no times of earlier attempts. The same key was used twice: of the first job nothing is left.
	want.Enqueued["api"]--
	for _, tr := range []string{"unknown>queued", "queued>active", "active>complete"} {
		want.Transitions[tr]--
	}
	want.Waits, want.WaitSeconds = want.Kept.Waits, want.Kept.WaitSeconds
	want.Runs, want.RunSeconds = want.Kept.Runs, want.Kept.RunSeconds
	if want.Waits < 40 || want.Runs < 40 {
		t.Fatalf("%v waits and %v runs are kept of 80 jobs: too few to be a test", want.Waits, want.Runs)
	}
	wantCounted(t, second, want)
	if n := first.counted(t).Enqueued; n["api"] != 0 {
		t.Errorf("the first replica counted %v, want nothing", n)
	}
}

// TestJobsBeforeTheFirstReplica: what waits then is counted, what had ended is not.
func TestJobsBeforeTheFirstReplica(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	runWorkload(t, server, 20, "short", "failing")
	putJob(t, rdb, "waiting", `{"queue":"training","status":"queued","queued":1700000000000,"kwargs":{"source":"api"}}`, true)
	c := startCounter(t, rdb)
	wantCounted(t, c, account{Enqueued: map[string]float64{"api": 1}, Transitions: map[string]float64{"unknown>queued": 1}})
}

// putJob puts a job there as SAQ would.
func putJob(t *testing.T, rdb redis.Cmdable, key, text string, incomplete bool) (id string) {
	t.Helper()
	id = jobPrefix + key
	if err := rdb.Set(t.Context(), id, text, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if incomplete {
		if err := rdb.ZAdd(t.Context(), incompleteKey, redis.Z{Member: id}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// loseAnswers lets scripts be carried out and keeps their answers back.
type loseAnswers struct {
	lost   atomic.Int64
	before bool // lose the question instead
}

var errLost = errors.New("answer lost")

func (l *loseAnswers) DialHook(next redis.DialHook) redis.DialHook { return next }
func (l *loseAnswers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *loseAnswers) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		isCommit := len(cmd.Args()) > 3 && (cmd.Args()[1] == commitScript.Hash() || cmd.Args()[1] == commitSource)
		if isCommit && l.before && l.lost.Add(-1) >= 0 {
			cmd.SetErr(errLost)
			return errLost
		}
		err := next(ctx, cmd)
		if err == nil && isCommit && !l.before && l.lost.Add(-1) >= 0 {
			cmd.SetErr(errLost)
			return errLost
		}
		return err
	}
}

// TestJobsAnswerLost: a batch that was written though its answer was lost counts
// once, whether this replica still leads or another has taken over and found all
// written.
func TestJobsAnswerLost(t *testing.T) {
	t.Parallel()
	for _, takenOver := range []bool{false, true} {
		t.Run(fmt.Sprint("taken over ", takenOver), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			rdb := server.Client(t)
			hook := new(loseAnswers)
			lossy := server.Client(t)
			lossy.AddHook(hook)
			c := unstarted(lossy)
			must(t, c.step(t.Context()))
			putJob(t, rdb, "a", `{"queue":"training","status":"queued","queued":1700000000000}`, true)

			hook.lost.Store(2)
			if err := c.step(t.Context()); !errors.Is(err, errLost) {
				t.Fatalf("error %v, want %v", err, errLost)
			}
			other := unstarted(rdb)
			if takenOver {
				must(t, rdb.Del(t.Context(), c.ledger.leaseKey()).Err())
				must(t, other.step(t.Context()))
			}
			if err := c.step(t.Context()); !errors.Is(err, errLost) {
				t.Fatalf("error %v, want %v", err, errLost)
			}
			must(t, c.step(t.Context()))
			must(t, c.step(t.Context()))
			if got := c.value(t, "refrakt_job_enqueued_total", "source", "unknown"); got != 1 {
				t.Errorf("counted %v times, want once", got)
			}
			if got := other.value(t, "refrakt_job_enqueued_total", "source", "unknown"); got != 0 {
				t.Errorf("the other counted it %v times", got)
			}
		})
	}
}

// TestJobsNotWrittenNotCounted: a leader that lost its lease counts nothing more.
func TestJobsNotWrittenNotCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	a, b := unstarted(rdb), unstarted(rdb)
	must(t, a.step(t.Context()))
	must(t, rdb.Del(t.Context(), a.ledger.leaseKey()).Err()) // as if it had ended
	must(t, b.step(t.Context()))
	putJob(t, rdb, "a", `{"queue":"training","status":"queued","queued":1700000000000}`, true)

	a.events.add(jobPrefix+"a", event{job.Queued, 1000})
	must(t, a.countEvents(t.Context()))
	if got := a.value(t, "refrakt_job_enqueued_total", "source", "unknown"); got != 0 || a.token != "" {
		t.Errorf("counted %v without the lease, and leads: %v", got, a.token != "")
	}
	must(t, b.step(t.Context()))
	if got := b.value(t, "refrakt_job_enqueued_total", "source", "unknown"); got != 1 {
		t.Errorf("counted %v by the new leader, want 1", got)
	}
	if leads := b.value(t, "refrakt_gate_job_counter_leader") - a.value(t, "refrakt_gate_job_counter_leader"); leads != 1 {
		t.Error("not exactly the new one says that it leads")
	}
}

// TestLargeJobs: jobs are counted however large their results are, and those that
// have ended are not read again.
func TestLargeJobs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	m := new(meter)
	metered := server.Client(t)
	metered.AddHook(m)
	c := unstarted(metered)
	must(t, c.step(t.Context()))
	const jobs = 40
	large := strings.Repeat("x", 300_000)
	for i := range jobs {
		putJob(t, rdb, fmt.Sprint(i), fmt.Sprintf(`{"function": "train", "kwargs": {"source": "api"}, "queue": "training", "key": "%d", "attempts": 1, "completed": 9700000000000, `+
			`"queued": 1700000000000, "started": 1700000001000, "result": "%s", "status": "complete"}`, i, large), false)
	}
	// The arguments are large too: only the status can be read.
	id := putJob(t, rdb, "large", `{"function": "train", "kwargs": {"x": "`+large+`"}, "queue": "training", "key": "large", "queued": 1700000000000, "status": "queued"}`, true)
	c.events.markGap()
	must(t, c.step(t.Context()))
	wantCounted(t, c, account{
		Enqueued:    map[string]float64{"api": jobs, "unknown": 1},
		Transitions: map[string]float64{"unknown>queued": jobs + 1, "queued>active": jobs, "active>complete": jobs},
		Waits:       jobs, WaitSeconds: jobs, Runs: jobs, RunSeconds: jobs * 7999999999,
	})
	must(t, rdb.Set(t.Context(), id, `{"function": "train", "kwargs": {"x": "`+large+`"}, "queue": "training", "key": "large", "attempts": 1, "completed": 1700000009000, `+
		`"queued": 1700000000000, "started": 1700000001000, "result": "`+large+`", "status": "complete"}`, 0).Err())
	must(t, rdb.ZRem(t.Context(), incompleteKey, id).Err())
	c.events.markGap()          // no event told of that
	for range maxDeferred + 1 { // an event that tells of the start may still come
		must(t, c.step(t.Context()))
	}
	if got := c.counted(t).Transitions["active>complete"]; got != jobs+1 {
		t.Errorf("%v jobs have ended by the counter, want %d", got, jobs+1)
	}
	for range 10 {
		m.read.Store(0)
		must(t, c.step(t.Context()))
		if n := m.read.Load(); n > 0 {
			t.Fatalf("%d jobs that have ended were read again", n)
		}
	}
}

// TestReadFails: what could not be read is read later, and nothing of a walk is left out.
func TestReadFails(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	fails := new(failReads)
	flaky := server.Client(t)
	flaky.AddHook(fails)
	c := unstarted(flaky)
	must(t, c.step(t.Context()))
	for i := range 1000 {
		putJob(t, rdb, fmt.Sprint(i), `{"queue":"training","status":"complete","queued":1700000000000,"completed":9700000000000}`, false)
	}
	c.events.markGap()
	for i := range 30 {
		fails.next.Store(i%3 == 0)
		if err := c.step(t.Context()); err != nil && !errors.Is(err, errRead) {
			t.Fatal(err)
		}
	}
	if got := c.value(t, "refrakt_job_enqueued_total", "source", "unknown"); got != 1000 {
		t.Errorf("%v jobs counted, want 1000", got)
	}
}

// failReads fails the next read of payloads.
type failReads struct{ next atomic.Bool }

var errRead = errors.New("connection reset")

func (*failReads) DialHook(next redis.DialHook) redis.DialHook { return next }
func (*failReads) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f *failReads) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if isRead(cmd) && f.next.CompareAndSwap(true, false) {
			cmd.SetErr(errRead)
			return errRead
		}
		return next(ctx, cmd)
	}
}

// isRead says that a command reads jobs.
func isRead(cmd redis.Cmder) bool {
	args := cmd.Args()
	if len(args) < 4 || !strings.HasPrefix(cmd.Name(), "eval") {
		return false
	}
	key, _ := args[3].(string)
	return strings.HasPrefix(key, "saq:job:")
}

// TestJobsOfOthers: neither another queue's jobs, nor those of another database of the
// same Redis, nor payloads of another form are counted, whatever events say of them.
func TestJobsOfOthers(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	c := unstarted(rdb)
	must(t, c.step(t.Context()))
	putJob(t, rdb, "b:1", `{"queue":"training:b","status":"complete","queued":1700000000000}`, false)
	putJob(t, rdb, "pickled", "\x80\x04", true)
	for _, key := range []string{"b:1", "pickled", "another database's"} {
		c.events.add(jobPrefix+key, event{job.Queued, 500})
		c.events.add(jobPrefix+key, event{job.Active, 1000})
		c.events.add(jobPrefix+key, event{job.Complete, 2000})
	}
	must(t, c.countEvents(t.Context()))
	must(t, c.step(t.Context()))
	if got := c.counted(t); len(got.Transitions) > 0 {
		t.Errorf("counted %v, want nothing", got.Transitions)
	}
}

// TestJobsOfAnotherDatabase: Redis has the same channels for all of its databases.
func TestJobsOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	c := startCounter(t, rdb)
	polltest.True(t, "subscribed", func() bool { return c.value(t, "refrakt_gate_job_events_subscribed") == 1 })
	options := *rdb.Options()
	options.DB = 5
	other := redis.NewClient(&options)
	defer other.Close()
	for _, status := range []string{"queued", "active", "complete"} {
		must(t, other.Publish(t.Context(), jobPrefix+"j1", status).Err())
	}
	// Events are counted in their order, so this one comes after.
	putJob(t, rdb, "j2", `{"queue":"training","status":"queued","queued":1700000000000,"kwargs":{"source":"api"}}`, false)
	must(t, rdb.Publish(t.Context(), jobPrefix+"j2", "queued").Err())
	polltest.True(t, "the job of this database counted", func() bool { return c.value(t, "refrakt_job_enqueued_total", "source", "api") == 1 })
	wantCounted(t, c, account{Enqueued: map[string]float64{"api": 1}, Transitions: map[string]float64{"unknown>queued": 1}})
}

// TestEventsOfABatchNotWritten: events of a batch that was not written are not lost
// with it.
func TestEventsOfABatchNotWritten(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	hook := new(loseAnswers)
	lossy := server.Client(t)
	lossy.AddHook(hook)
	c := unstarted(lossy)
	id := putJob(t, rdb, "gone", `{"queue":"training","status":"queued","queued":1700000000000}`, true)
	must(t, c.step(t.Context()))
	must(t, rdb.Del(t.Context(), id).Err())
	c.events.add(id, event{job.Active, 1000})
	c.events.add(id, event{job.Complete, 2000})
	hook.before = true
	hook.lost.Store(1)
	if err := c.countEvents(t.Context()); !errors.Is(err, errLost) {
		t.Fatalf("error %v, want %v", err, errLost)
	}
	must(t, rdb.Del(t.Context(), c.ledger.leaseKey()).Err())
	for range 3 {
		must(t, c.step(t.Context()))
		must(t, c.countEvents(t.Context()))
	}
	wantCounted(t, c, account{
		Enqueued:    map[string]float64{"unknown": 1},
		Transitions: map[string]float64{"unknown>queued": 1, "queued>active": 1, "active>complete": 1},
		Waits:       1, Runs: 1, RunSeconds: 0.001,
	})
}

// TestWithoutASubscription: jobs are counted by what the queue keeps of them, and it
// is said that there is no subscription.
func TestWithoutASubscription(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	must(t, admin.Do(t.Context(), "ACL", "SETUSER", "deaf", "on", "nopass", "~*", "resetchannels", "+@all").Err())
	options := *admin.Options()
	options.Username, options.Password = "deaf", "any"
	rdb := redis.NewClient(&options)
	defer rdb.Close()
	var log lockedBuffer
	c := unstarted(rdb)
	c.subscription = condition.New(slog.New(slog.NewTextHandler(&log, nil)), "subscription to job statuses fails", "works again")
	c.run(t)
	for i := range 3 { // one walk after another
		putJob(t, admin, fmt.Sprint(i), `{"queue":"training","status":"complete","queued":1700000000000,"started":1700000001000,"completed":9700000000000,"attempts":1}`, false)
		polltest.True(t, "counted by a walk", func() bool { return c.value(t, "refrakt_job_enqueued_total", "source", "unknown") == float64(i+1) })
	}
	polltest.True(t, "said", func() bool { return c.Problem() != "" })
	if got := c.value(t, "refrakt_gate_job_events_subscribed"); got != 0 {
		t.Errorf("the gauge says %v, want 0", got)
	}
	must(t, admin.Do(t.Context(), "ACL", "SETUSER", "deaf", "allchannels").Err())
	polltest.True(t, "subscribed", func() bool {
		return c.Problem() == "" && c.value(t, "refrakt_gate_job_events_subscribed") == 1
	})
	c.stop()
	if n := strings.Count(log.String(), "subscription to job statuses fails"); n != 1 || !strings.Contains(log.String(), "NOPERM") {
		t.Errorf("logged %d times, want once, with what Redis says:\n%s", n, log.String())
	}
}

// lockedBuffer is a bytes.Buffer that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestJobsRedisRestarts: what was counted before is not counted again, whether Redis comes back with its data or empty.
func TestJobsRedisRestarts(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"with data": {"--appendonly", "yes", "--appendfsync", "always"}, "empty": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, args...)
			rdb := server.Client(t)
			c := startCounter(t, rdb)
			api := func() float64 { return c.value(t, "refrakt_job_enqueued_total", "source", "api") }
			const text = `{"queue":"training","status":"queued","queued":%d,"kwargs":{"source":"api"}}`
			putJob(t, rdb, "a", fmt.Sprintf(text, 1700000000000), true)
			polltest.True(t, "the first counted", func() bool { return api() == 1 })
			server.Restart()
			putJob(t, rdb, "b", fmt.Sprintf(text, 1700000000001), true)
			polltest.True(t, "the second counted", func() bool { return api() == 2 })
			want := map[bool]int64{true: 2, false: 1}[args != nil]
			polltest.True(t, "the ledger written", func() bool { return rdb.HLen(t.Context(), c.ledger.key()).Val() == want })
			if got := api(); got != 2 {
				t.Errorf("%v jobs counted, want 2", got)
			}
		})
	}
}

// TestJobsForgotten: the entry of a job whose payload is gone is removed, but not
// while an event of the job may still come.
func TestJobsForgotten(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	c := unstarted(rdb)
	must(t, c.step(t.Context()))
	putJob(t, rdb, "a", `{"queue":"training","status":"complete","queued":1700000000000,"completed":9700000000000}`, false)
	c.events.markGap()
	must(t, c.step(t.Context()))
	id := jobPrefix + "a"
	must(t, rdb.Del(t.Context(), id).Err())
	must(t, c.step(t.Context()))
	text, err := rdb.HGet(t.Context(), c.ledger.key(), id).Result()
	must(t, err)
	var e entry
	must(t, json.Unmarshal([]byte(text), &e))
	if e.Missing == 0 {
		t.Fatalf("entry %s does not say since when the payload is missed", text)
	}
	e.Missing -= keepMissing.Milliseconds()
	old, err := json.Marshal(e)
	must(t, err)
	must(t, rdb.HSet(t.Context(), c.ledger.key(), id, old).Err())
	must(t, c.step(t.Context()))
	if n := rdb.HLen(t.Context(), c.ledger.key()).Val(); n != 0 {
		t.Errorf("%d entries left, want none", n)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestJobsCost: a step asks Redis for no more when 20,000 jobs wait than the
// bounds say, and yet all are found in time.
func TestJobsCost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	const waiting = 20_000
	for begin := 0; begin < waiting; begin += 1000 {
		_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range 1000 {
				id := fmt.Sprintf("%s%d", jobPrefix, begin+i)
				p.Set(t.Context(), id, `{"queue":"training","status":"queued","queued":1700000000000,"kwargs":{"source":"api"}}`, 0)
				p.ZAdd(t.Context(), incompleteKey, redis.Z{Member: id})
			}
			return nil
		})
		must(t, err)
	}
	m := new(meter)
	metered := server.Client(t)
	metered.AddHook(m)
	c := unstarted(metered)
	// With the walk through all keys, and then by the other sweeps alone.
	within := func(what string) {
		t.Helper()
		if n, p := m.commands.Load(), m.read.Load(); p > stepBatches*batchJobs || n > 20+scansPerStep+stepBatches*(batchJobs/16+4) {
			t.Fatalf("a step of %s read %d jobs with %d commands", what, p, n)
		}
		m.read.Store(0)
		m.commands.Store(0)
	}
	must(t, c.step(t.Context()))
	within("the walk")
	c.sweeps.allRuns, c.gap, c.found = false, false, nil
	steps := 0
	for ; c.value(t, "refrakt_job_enqueued_total", "source", "api") < waiting; steps++ {
		if steps > waiting/256*2 {
			t.Fatalf("%v of %d counted after %d steps", c.value(t, "refrakt_job_enqueued_total", "source", "api"), waiting, steps)
		}
		must(t, c.step(t.Context()))
		within("the sweeps")
	}
	t.Logf("%d jobs were found in %d steps", waiting, steps)
}

// TestKnownJobsAreNotRead: after the walk through all jobs, waiting jobs that are in the
// ledger are not read again, but for a few of them. A new job is found, and a job of which
// an event comes is read.
func TestKnownJobsAreNotRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	m := new(meter)
	metered := server.Client(t)
	metered.AddHook(m)
	c := unstarted(metered)
	const waiting = 1000
	put := func(i int, status string) string {
		return putJob(t, rdb, fmt.Sprint(i), `{"function": "f", "kwargs": {}, "queue": "training", "key": "1", "queued": 1700000000000, "started": 1700000001000, "status": "`+status+`"}`, true)
	}
	var last string
	for i := range waiting {
		last = put(i, "queued")
	}
	counted := func(transition string, want float64) {
		t.Helper()
		for steps := 0; c.counted(t).Transitions[transition] < want; steps++ {
			if steps > 100 {
				t.Fatalf("%v of %v are counted: %s", c.counted(t).Transitions[transition], want, transition)
			}
			must(t, c.step(t.Context()))
			must(t, c.countEvents(t.Context()))
		}
	}
	counted("unknown>queued", waiting)
	for c.sweeps.allRuns || c.gap { // the walk may have more to read
		must(t, c.step(t.Context()))
	}
	must(t, c.step(t.Context()))
	m.read.Store(0)
	const steps = 20
	for range steps {
		must(t, c.step(t.Context()))
	}
	// ZSCAN and HSCAN find 256 each.
	if n := m.read.Load(); n == 0 || n > steps*2*256/readAnyway*3/2 {
		t.Errorf("%d jobs were read in %d steps, want one in %d of those that were looked at", n, steps, readAnyway)
	}
	put(waiting, "queued")
	counted("unknown>queued", waiting+1)
	put(waiting-1, "active")
	c.events.deliver(job.Event{ID: last, Status: job.Active})
	counted("queued>active", 1)
}

// meter counts commands, and the jobs that were read.
type meter struct{ commands, read atomic.Int64 }

func (m *meter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *meter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		m.commands.Add(1)
		if isRead(cmd) && cmd.Name() == "evalsha" {
			keys, _ := cmd.Args()[2].(int)
			for _, deep := range cmd.Args()[3+keys+1:] {
				if deep == true {
					m.read.Add(1)
				}
			}
		}
		return next(ctx, cmd)
	}
}

func (m *meter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		m.commands.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}
