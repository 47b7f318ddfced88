// Package job is what package jobmetrics and the packages that read a queue tell
// each other about one job. It knows no queue.
package job

import "time"

// Status is the state of a job; it is a label value of the metrics.
type Status string

// The statuses. Unknown is the one that every job comes from: it is counted as
// unknown → queued when it is seen for the first time.
const (
	Unknown  Status = "unknown"
	Queued   Status = "queued"
	Active   Status = "active"
	Aborting Status = "aborting"
	Aborted  Status = "aborted"
	Failed   Status = "failed"
	Complete Status = "complete"
)

// Known reports whether s is a status that a job in a queue can have.
func (s Status) Known() bool {
	return s == Queued || s == Active || s == Aborting || s.Final()
}

// Final reports whether a job with this status has ended.
func (s Status) Final() bool {
	return s == Aborted || s == Failed || s == Complete
}

// Job is what a queue keeps of one job. Times are milliseconds since the epoch, by
// the clock of whoever wrote them; 0 means that there is none.
type Job struct {
	Status Status
	// Enqueued tells a job from an earlier one with the same id.
	Enqueued int64
	// FirstRunnable is when the job could run for the first time: when it was
	// enqueued or, for a scheduled job, when it was due.
	FirstRunnable int64
	// Runnable is when the job could run last: FirstRunnable or, for a job that was
	// given back, when its retry was due.
	Runnable int64
	// Retried reports that the waiting job was given back after an attempt.
	Retried bool
	// Attempts is the number of starts, the one under way included.
	Attempts int64
	// Started is the newest start. Ended is the end.
	Started, Ended int64
	// RetryDelay is how long the job waits for its retry after so many attempts; nil
	// means not at all.
	RetryDelay func(attempts int64) time.Duration
	// Source is what enqueued the job, as its arguments say; empty if they don't.
	Source string
}

// SourceOther is the source of a job whose arguments name one that is no text, and
// the label value of each source that is not counted by name.
const SourceOther = "other"

// Reading is what one look at a job found.
type Reading struct {
	// Exists reports that the queue has something under the job's id.
	Exists bool
	// Job is nil if there is nothing, or nothing of this queue, or nothing that can
	// be read at a bounded cost.
	Job *Job
	// Status is that of a job of which nothing else could be read; empty otherwise.
	Status Status
}

// Event says that a job got a status.
type Event struct {
	ID     string
	Status Status
}

// Lookup asks about one job.
type Lookup struct {
	ID string
	// OnlyExists asks for no more than whether the queue has something under the id.
	OnlyExists bool
}
