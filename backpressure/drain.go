package backpressure

import (
	"slices"
	"time"
)

// drainWindow is how far back the drain rate looks.
const drainWindow = 30 * time.Second

// drain observes how fast workers take jobs, from the depths of recent samples.
// Jobs that came and went between two samples stay unseen, so a busy queue looks
// slower than it is. The zero value is ready.
type drain struct {
	depths []depth // oldest first, none older than drainWindow before the newest
}

type depth struct {
	at      time.Time
	pending int64
}

// observe takes the newest depth and returns the rate in jobs per second, 0
// while there is none to be seen.
func (d *drain) observe(at time.Time, pending int64) float64 {
	d.depths = append(d.depths, depth{at, pending})
	oldest := at.Add(-drainWindow)
	d.depths = slices.DeleteFunc(d.depths, func(p depth) bool { return p.at.Before(oldest) })

	var taken int64
	for i := 1; i < len(d.depths); i++ {
		taken += max(0, d.depths[i-1].pending-d.depths[i].pending)
	}
	elapsed := at.Sub(d.depths[0].at).Seconds()
	if taken == 0 || elapsed <= 0 {
		return 0
	}
	return float64(taken) / elapsed
}
