package backpressure

import (
	"context"
	"time"
)

// Queue is the job queue that a [Monitor] watches; package saq has SAQ's. What one
// call costs the queue is bounded, however many jobs wait and however large they are.
type Queue interface {
	// Sample looks at the queue. since is the cursor of the sample before, nil for the
	// first one.
	Sample(ctx context.Context, since Cursor) (Sample, error)
	// Admit counts one more job in, unless maxPending jobs wait or are on their way. A
	// request that was admitted counts as a job on its way until its job has come, or
	// until one to two windows are over. All gates of a queue share the count. A
	// repeated call would count twice, so Admit never retries.
	Admit(ctx context.Context, maxPending int, window time.Duration) (Admission, error)
}

// Cursor is what a queue needs in order to tell how many jobs leave from one sample
// to the next. Only the queue knows what is in it.
type Cursor any

// Sample is one look at a queue.
type Sample struct {
	Pending int64 // jobs that wait
	Running int64 // jobs that workers have taken
	Workers int64 // workers that are alive
	// OldestAge is how long the oldest waiting job could have run already; 0 if none
	// waits. It means nothing unless AgeKnown.
	OldestAge time.Duration
	AgeKnown  bool
	// Left is how many jobs have stopped waiting since the sample before. Unless
	// LeftExact, more may have.
	Left      int64
	LeftExact bool
	// Admitted counts the admissions of all gates. It may begin anew at 0.
	Admitted int64
	Cursor   Cursor
}

// Admission is the outcome of [Queue.Admit].
type Admission struct {
	Admitted bool
	Pending  int64 // jobs that wait or are on their way, without this one
}
