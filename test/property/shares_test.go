package property_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// TestCrowdOfOne: 300 requests at once from one caller, through three gates, get exactly its share. Ten others then all
// get in. The same crowd without a fair share takes all places.
func TestCrowdOfOne(t *testing.T) {
	const limit = 40
	for share, want := range map[float64]int{1: 20, 0.5: 13, 2: 26, 0: limit} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			server := redistest.Start(t)
			outcomes := make(map[quota.PlaceOutcome]int)
			var mu sync.Mutex
			var gates sync.WaitGroup
			for range 3 {
				g := newGate(server.Client(t), true)
				gates.Go(func() {
					got := g.ask(t, 100, func(int) wish { return wish{quota.PlaceRequired, "default", limit, share, "crowd"} })
					mu.Lock()
					defer mu.Unlock()
					for o, n := range got {
						outcomes[o] += n
					}
				})
			}
			gates.Wait()
			refused := quota.PlaceShare
			if share == 0 {
				refused = quota.PlaceFull
			}
			if all := map[quota.PlaceOutcome]int{quota.PlaceGiven: want, refused: 300 - want}; !maps.Equal(outcomes, all) {
				t.Fatalf("the crowd: %v, want %v", outcomes, all)
			}
			others := newGate(server.Client(t), true).ask(t, 10, func(i int) wish {
				return wish{quota.PlaceRequired, "default", limit, share, fmt.Sprint("other", i)}
			})
			if (others[quota.PlaceGiven] == 10) != (share > 0) {
				t.Errorf("ten others: %v", others)
			}
		})
	}
}
