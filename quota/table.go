package quota

import (
	"hash/maphash"
	"math/bits"
	"time"
)

// table holds the buckets of a [Memory], in as little memory as that needs: 16 bytes for
// each place, and no pointer that the garbage collector had to follow. It is an open hash
// table with linear probing (Knuth, The Art of Computer Programming, vol. 3, 6.4,
// algorithms L and R).
//
// A bucket is known by a hash of 64 bits of its key, with a seed of this process. With
// two million buckets, the chance that a new one is taken for another one is 1 in 10^13.
type table struct {
	seed  maphash.Seed
	slots []slot
	used  int // slots that are not free
	hand  int // where the sweep goes on
}

// slot is one bucket; its zero value is free.
type slot struct {
	id     uint64
	fullAt time.Duration
}

// newTable returns a table with room for so many buckets. It has a fifth more slots, so
// that searches stay short.
func newTable(buckets int) *table {
	return &table{seed: maphash.MakeSeed(), slots: make([]slot, buckets+buckets/5+1)}
}

// id returns what the bucket with this key is known by; never 0.
func (t *table) id(key string) uint64 { return max(1, maphash.String(t.seed, key)) }

// find returns the slot of a bucket, or the free slot that it would get.
func (t *table) find(id uint64) *slot {
	i := t.home(id)
	for t.slots[i].id != id && t.slots[i].id != 0 {
		i = t.after(i)
	}
	return &t.slots[i]
}

// put sets when a bucket will be full.
func (t *table) put(id uint64, fullAt time.Duration) {
	s := t.find(id)
	if s.id == 0 {
		t.used++
	}
	*s = slot{id, fullAt}
}

// sweep looks at n slots and frees those of full buckets.
func (t *table) sweep(now time.Duration, n int) {
	for range n {
		if s := t.slots[t.hand]; s.id != 0 && s.fullAt <= now {
			t.free(t.hand) // another bucket may have the slot now, and is looked at next
		} else {
			t.hand = t.after(t.hand)
		}
	}
}

// free frees a slot. Buckets that a search would no longer find behind the gap move into
// it.
func (t *table) free(gap int) {
	for i := t.after(gap); t.slots[i].id != 0; i = t.after(i) {
		// A bucket can stay where it is if its search begins behind the gap.
		home := t.home(t.slots[i].id)
		stays := gap < home && home <= i
		if i < gap {
			stays = gap < home || home <= i
		}
		if !stays {
			t.slots[gap] = t.slots[i]
			gap = i
		}
	}
	t.slots[gap] = slot{}
	t.used--
}

// home is where the search for a bucket begins.
func (t *table) home(id uint64) int {
	high, _ := bits.Mul64(id, uint64(len(t.slots)))
	return int(high) //nolint:gosec // below the number of slots
}

func (t *table) after(i int) int {
	if i++; i < len(t.slots) {
		return i
	}
	return 0
}
