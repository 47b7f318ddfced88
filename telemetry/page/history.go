package page

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// slotTime is the time between two looks, and slots is how many are kept: 10 minutes.
	slotTime = 5 * time.Second
	slots    = 120
	// perBar is how many slots a bar of a chart has, and bars is how many bars there are.
	perBar = 3
	bars   = slots / perBar
)

// history has what the counters and gauges said in the last minutes. Its size is bounded by
// maxTracks and by the number of queues.
type history struct {
	mu     sync.Mutex
	done   int // how many slots there have been; slot i is at i % slots
	tracks tracks
	queues map[string]*queueTrack
	begun  map[string]time.Time // since when each trouble is known, by its key
}

// queueTrack is what was known of a queue in each slot. NaN: nothing.
type queueTrack struct{ pending, age [slots]float32 }

func newHistory() *history {
	return &history{queues: make(map[string]*queueTrack), begun: make(map[string]time.Time)}
}

// tick fills the next slot with what there is now.
func (h *history) tick(policies []Policy, decisions decisions, depths []Depth) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.done % slots
	h.tracks.follow(policies)
	for t, now := range h.tracks.sum(decisions) {
		t.enter(at, now)
	}
	h.enterDepths(at, depths)
	h.done++
}

func (h *history) enterDepths(at int, depths []Depth) {
	unknown := float32(math.NaN())
	for name, q := range h.queues {
		if !slices.ContainsFunc(depths, func(d Depth) bool { return d.Queue == name }) {
			delete(h.queues, name)
			continue
		}
		q.pending[at], q.age[at] = unknown, unknown
	}
	for _, d := range depths {
		q := h.queues[d.Queue]
		if q == nil {
			q = new(queueTrack)
			for i := range slots {
				q.pending[i], q.age[i] = unknown, unknown
			}
			h.queues[d.Queue] = q
		}
		q.pending[at], q.age[at] = float32(d.Pending), float32(d.Age)
	}
}

// since returns since when each of these is known, by key, and forgets those that are over.
func (h *history) since(troubles []Trouble, now time.Time) map[string]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	begun := make(map[string]time.Time, len(troubles))
	for _, t := range troubles {
		begin, known := h.begun[t.Key]
		if !known {
			begin = now
		}
		begun[t.Key] = begin
	}
	h.begun = begun
	return begun
}

// recent is what became of the requests of one policy, or of several, in the last minutes.
type recent struct {
	Name   string
	Merged int // how many policies these are; 0: one
	Bars   [bars]counts
	Sum    counts
}

// recent returns the last minutes of these policies up to now, for which decisions has the
// counters.
func (h *history) recent(policies []Policy, decisions decisions) []recent {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tracks.follow(policies)
	now := h.tracks.sum(decisions)
	all := make([]recent, 0, len(h.tracks.list))
	for _, t := range h.tracks.list {
		r := recent{Name: t.name, Merged: t.merged, Sum: make(counts)}
		add := func(bar int, o outcome, n float64) {
			if n == 0 {
				return
			}
			if r.Bars[bar] == nil {
				r.Bars[bar] = make(counts)
			}
			r.Bars[bar][o] += n
			r.Sum[o] += n
		}
		for o, ring := range t.slots {
			h.eachSlot(func(bar, at int) { add(bar, o, float64(ring[at])) })
		}
		for o, n := range t.gained(now[t]) {
			add(bars-1, o, n)
		}
		all = append(all, r)
	}
	return all
}

// eachSlot calls each with the slots that have been and that a chart shows, oldest first.
// The newest bar is that of the slot to come. A slot stays with its bar as time goes on.
func (h *history) eachSlot(each func(bar, at int)) {
	first := h.done/perBar - (bars - 1) // number of the first bar
	for slot := max(0, first*perBar); slot < h.done; slot++ {
		each(slot/perBar-first, slot%slots)
	}
}

// depths returns what was known of a queue in each slot, oldest first, and NaN for slots
// before the start.
func (h *history) depths(queue string) (pending, age []float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[queue]
	for i := range slots {
		slot := h.done - slots + i
		if q == nil || slot < 0 {
			pending, age = append(pending, math.NaN()), append(age, math.NaN())
			continue
		}
		pending, age = append(pending, float64(q.pending[slot%slots])), append(age, float64(q.age[slot%slots]))
	}
	return pending, age
}
