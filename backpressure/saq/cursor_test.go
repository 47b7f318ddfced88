package saq

import (
	"math/rand/v2"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// TestCursor compares what the cursor tells with what left a real list, at random. Jobs that
// are only taken are counted one by one, unless all that there were have gone. With
// jobs that are given back or aborted the number may be too small, but not too great.
func TestCursor(t *testing.T) {
	t.Parallel()
	for name, takenOnly := range map[string]bool{"taken": true, "taken, given back, aborted": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := &playedQueue{t: t, rdb: redistest.Start(t).Client(t)}
			random := rand.New(rand.NewPCG(1, 2))
			var before backpressure.Sample
			exact, depths := 0, []int{10, 40, 200, 3000}
			const looks = 400
			for look := range looks {
				deep := depths[look*len(depths)/looks]
				for q.depth() < deep {
					q.enqueue()
				}
				var left int64
				last := false // the last job of the cursor may have been aborted
				for range random.IntN(min(deep, 100) * 5 / 4) {
					switch n := random.IntN(20); {
					case n < 8:
						q.enqueue()
						continue
					case q.depth() == 0:
						continue
					case n == 8 && !takenOnly:
						q.abort(random.IntN(q.depth()))
						last = true
					default:
						q.take()
						if n < 10 && !takenOnly {
							q.giveBack()
						}
					}
					left++
				}
				r, err := newQueue(q.rdb).Sample(t.Context(), before.Cursor, false)
				must(t, err)
				switch {
				case r.LeftExact && r.Left == left, !r.LeftExact && left >= before.Pending && r.Left <= left:
				case takenOnly:
					t.Fatalf("look %d: %d of %d jobs left by the cursor (exactly: %v), %d in truth", look, r.Left, before.Pending, r.LeftExact, left)
				case r.Left > left && !last:
					t.Fatalf("look %d: %d of %d jobs left by the cursor, %d in truth", look, r.Left, before.Pending, left)
				}
				if r.LeftExact {
					exact++
				}
				before = r
			}
			t.Logf("%d of %d looks were exact", exact, looks)
			if exact < looks/2 || exact == looks {
				t.Errorf("%d of %d looks were exact: not all was put to the test", exact, looks)
			}
		})
	}
}

// TestCursorOfATwiceListedJob: it stands nearer to the head than it was without
// anything having left.
func TestCursorOfATwiceListedJob(t *testing.T) {
	t.Parallel()
	q := &playedQueue{t: t, rdb: redistest.Start(t).Client(t)}
	for range 10 {
		q.enqueue()
	}
	q.push("saq:job:default:1")
	var before backpressure.Cursor
	for range 2 {
		r, err := newQueue(q.rdb).Sample(t.Context(), before, false)
		must(t, err)
		if r.Left != 0 {
			t.Errorf("%d jobs left, want none", r.Left)
		}
		before = r.Cursor
	}
}
