package saq

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// TestHolders: those with most places come first, in one step or several, and no more than wanted.
func TestHolders(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	queue := newQueue(rdb)
	const callers = 2*holdersStep + 20
	for i := range callers {
		must(t, rdb.ZAdd(t.Context(), queue.sharesKey(), redis.Z{Member: fmt.Sprint("ip:", i), Score: float64(i + 1)}).Err())
	}
	for _, n := range []int{1, holdersStep, holdersStep + 1, 2 * holdersStep, callers, callers + 200} {
		got, err := queue.Holders(t.Context(), n)
		must(t, err)
		if len(got) != min(n, callers) {
			t.Fatalf("%d holders, want %d of %d", len(got), n, callers)
		}
		for i, h := range got {
			if want := (Holder{fmt.Sprint("ip:", callers-1-i), int64(callers - i)}); h != want {
				t.Errorf("of %d, number %d is %v, want %v", n, i, h, want)
			}
		}
	}
}
