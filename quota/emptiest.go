package quota

import "time"

// emptiest finds, among the buckets of a request, the one that runs out first or, if one
// is empty, the one that has no token for the longest time. take.lua does the same.
type emptiest struct {
	enough bool // each bucket that was looked at has a token; true at the start
	bucket int
	debt   time.Duration
	left   float64       // tokens in that bucket, if all have one
	wait   time.Duration // until that bucket has a token, if one has none
}

// look compares the bucket with index i.
func (e *emptiest) look(i int, l Limit, debt time.Duration) {
	wait := debt + l.Interval - l.Span()
	left := -float64(wait) / float64(l.Interval)
	switch {
	case wait > 0 && (e.enough || wait > e.wait):
		*e = emptiest{bucket: i, debt: debt, wait: wait}
	case e.enough && wait <= 0 && (i == 0 || left < e.left):
		*e = emptiest{enough: true, bucket: i, debt: debt, left: left}
	}
}
