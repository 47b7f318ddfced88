package authz

import (
	"sync"
	"testing"
)

// TestMemo: the value of a key is the same, however often and by how many it is looked up.
func TestMemo(t *testing.T) {
	m := newMemo(func(key int) *int { return &key })
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		all.Go(func() {
			<-start
			for i := range 1000 {
				if v := m.get(i % 200); *v != i%200 {
					t.Errorf("%d has %d", i%200, *v)
				}
			}
		})
	}
	close(start)
	all.Wait()
	if first := m.get(7); first != m.get(7) {
		t.Error("the value was computed again")
	}
	if allocs := testing.AllocsPerRun(100, func() { m.get(1) }); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
