package quota

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTable compares a table that is nearly full with a map, while buckets come, change,
// become full and are swept.
func TestTable(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		const most = 60
		table, want := newTable(most), make(map[uint64]time.Duration)
		for step := range 5000 {
			now := time.Duration(step)
			id := 1 + random.Uint64N(200)<<55 // many begin their search at the same place
			if _, ok := want[id]; ok || len(want) < most {
				fullAt := now + time.Duration(random.IntN(300))
				table.put(id, fullAt)
				want[id] = fullAt
			}
			table.sweep(now, random.IntN(3))
			for id, fullAt := range want {
				s := table.find(id)
				swept := s.id == 0 && fullAt <= now
				if swept {
					delete(want, id)
				} else if s.id != id || s.fullAt != fullAt {
					t.Fatalf("seed %d, step %d: bucket %x is %+v, want full at %v", seed, step, id, *s, fullAt)
				}
			}
			if table.used != len(want) {
				t.Fatalf("seed %d, step %d: %d slots used for %d buckets", seed, step, table.used, len(want))
			}
		}
		table.sweep(1<<40, 3*len(table.slots))
		if table.used != 0 {
			t.Errorf("seed %d: %d slots used after all are full and swept", seed, table.used)
		}
	}
}
