package saq

import (
	"math"
	"strconv"
	"time"

	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// fields are those of a SAQ job that the gate reads (saq.job.Job.to_dict). SAQ leaves
// out what has its default, 0 here. Its documentation calls the times epoch seconds;
// only scheduled is.
type fields struct {
	queue, status      string
	queued             float64 // ms: enqueued
	scheduled          float64 // s: not to be run before
	touched            float64 // ms: last update; a retry is one
	attempts           float64
	retryDelay         float64 // s
	backoff            float64 // s: greatest delay of a retry with backoff; 0: no backoff
	failed             bool    // has an error
	started, completed float64 // ms
}

// fieldCount is how many values the scripts return of a job, see payload.lua.
const fieldCount = 11

// parseFields reads what the scripts return; false if that is something else.
func parseFields(values []any) (f fields, ok bool) {
	if len(values) < fieldCount {
		return fields{}, false
	}
	text := func(i int) string { s, _ := values[i].(string); return s }
	f = fields{queue: text(0), status: text(1), failed: text(8) != ""}
	for i, to := range map[int]*float64{
		2: &f.queued, 3: &f.scheduled, 4: &f.touched, 5: &f.attempts, 6: &f.retryDelay, 9: &f.started, 10: &f.completed,
	} {
		*to, _ = strconv.ParseFloat(text(i), 64)
	}
	switch backoff := text(7); backoff {
	case "":
	case "true":
		f.backoff = math.Inf(1)
	default:
		f.backoff, _ = strconv.ParseFloat(backoff, 64)
	}
	return f, true
}

// retried tells a retry from a plain update of a waiting job, and from a job object that
// was enqueued again after its end: a retry touches the job. A job that was swept before
// its first attempt was marked has no attempts, but an error.
func (f fields) retried() bool {
	return f.status == string(job.Queued) && (f.attempts > 0 || f.failed) && f.touched >= f.queued
}

// firstRunnable is the time in ms at which the job could run for the first time.
func (f fields) firstRunnable() int64 { return millis(max(f.queued, f.scheduled*1000)) }

// runnable is the time in ms at which the job could run last; 0 if the fields don't
// tell. An update of a waiting job changes touched, but not this.
func (f fields) runnable() int64 {
	since := f.firstRunnable()
	if f.retried() && f.touched > 0 {
		since = max(since, millis(f.touched+float64(f.delay(int64(f.attempts)).Milliseconds())))
	}
	return since
}

// delay is the delay of a retry after the given number of attempts, counted from
// touched. SAQ keeps that due time only as a score, which it overwrites when it
// moves the job to the list. With backoff SAQ drew the true delay at random; this is
// the upper bound, so an age is too small by at most that and never too great.
func (f fields) delay(attempts int64) time.Duration {
	seconds := max(0, f.retryDelay)
	if f.backoff != 0 && seconds > 0 {
		seconds = min(max(0, f.backoff), seconds*math.Exp2(float64(max(0, attempts-1))))
	}
	return time.Duration(min(seconds, maxSeconds) * float64(time.Second))
}

// maxSeconds keeps what stands in a payload within a Duration.
const maxSeconds = 100 * 365 * 24 * 3600

// millis keeps what stands in a payload within the times that make sense.
func millis(v float64) int64 {
	return int64(min(max(0, v), 1e15))
}

// asJob is the job as package jobmetrics knows it.
func (f fields) asJob(source string) *job.Job {
	return &job.Job{
		Status:        job.Status(f.status),
		Enqueued:      millis(f.queued),
		FirstRunnable: f.firstRunnable(),
		Runnable:      f.runnable(),
		Retried:       f.retried(),
		Attempts:      int64(min(max(0, f.attempts), 1e9)),
		Started:       millis(f.started),
		Ended:         millis(f.completed),
		RetryDelay:    f.delay,
		Source:        source,
	}
}
