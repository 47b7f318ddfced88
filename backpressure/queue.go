package backpressure

import (
	"context"
	"time"
)

// Queue is the job queue that a [Monitor] watches; package saq has SAQ's. What one
// call costs the queue is bounded, however many jobs wait and however large they are.
type Queue interface {
	// Sample looks at the queue. since is the cursor of the sample before, nil for the
	// first one. shares says that LargestShare is wanted.
	Sample(ctx context.Context, since Cursor, shares bool) (Sample, error)
	// Admit counts one more job in, unless the bounds of the place say that there is none. A
	// request that was admitted counts as a job on its way until its job has come, or
	// until one to two windows are over. All gates of a queue share the count. A
	// repeated call would count twice, so Admit never retries.
	Admit(ctx context.Context, p Place, window time.Duration) (Admission, error)
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
	// LargestShare is how many waiting jobs the caller has that has most of them, or a few
	// more; 0 if it was not asked for.
	LargestShare int64
	Cursor       Cursor
}

// Place is the wish for a place in a queue.
type Place struct {
	// Limit is the number of jobs, waiting or on their way, at which the queue is full for
	// this caller; 0: never.
	Limit int
	// Share bounds the jobs of one caller to so many times the places that stay free below
	// Limit; 0: there is no such bound. Caller is whose jobs count together.
	Share  float64
	Caller string
}

// Admission is the outcome of [Queue.Admit].
type Admission struct {
	Admitted bool
	Pending  int64 // jobs that wait or are on their way, without this one
	// OverShare says that the caller has its share already, though there is room. Pending is
	// then how many jobs leave until one of the caller's has left.
	OverShare bool
}
