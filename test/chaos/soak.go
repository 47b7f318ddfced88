package chaos

import (
	"fmt"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Resources is what a gate uses, at rest.
type Resources struct {
	Goroutines, Files float64
	Heap, Resident    float64 // bytes
}

// rest measures a gate while nobody asks: the least over some seconds, for garbage comes and goes.
func rest(tb testing.TB, g *e2e.Gate) Resources {
	tb.Helper()
	var least Resources
	for i := range 20 {
		e2e.Pass(tb, 250*time.Millisecond)
		m := g.Metrics(tb)
		now := Resources{m["go_goroutines"], m["process_open_fds"], m["go_memstats_heap_alloc_bytes"], m["process_resident_memory_bytes"]}
		if i == 0 {
			least = now
		}
		least = Resources{min(least.Goroutines, now.Goroutines), min(least.Files, now.Files), min(least.Heap, now.Heap), min(least.Resident, now.Resident)}
	}
	return least
}

// Soak is what a gate used before and after a long time of faults.
type Soak struct {
	Faults        int
	For           time.Duration
	Before, After Resources
}

// Soak plays the faults of Redis over and over. Those of the first round are not counted: a gate that has seen each once
// has all the connections and memory it needs.
func (w *World) Soak(tb testing.TB, d time.Duration, each func(Figures)) Soak {
	tb.Helper()
	var s Soak
	round := func() {
		for _, f := range redisFaults() {
			each(w.Play(tb, f, Timed(2*time.Second)))
			s.Faults++
		}
	}
	begin := time.Now()
	round()
	s.Before, s.Faults = rest(tb, w.Gates[0]), 0
	for time.Since(begin) < d {
		round()
	}
	s.After, s.For = rest(tb, w.Gates[0]), time.Since(begin)
	return s
}

// wrong lists what grew.
func (s Soak) wrong() (wrong []string) {
	grew := func(what string, before, after, allowed float64) {
		if after > before+allowed {
			wrong = append(wrong, fmt.Sprintf("%s grew from %.0f to %.0f", what, before, after))
		}
	}
	grew("the number of goroutines", s.Before.Goroutines, s.After.Goroutines, 5)
	grew("the number of open files", s.Before.Files, s.After.Files, 5)
	grew("the heap", s.Before.Heap, s.After.Heap, 2<<20)
	grew("resident memory", s.Before.Resident, s.After.Resident, 8<<20)
	return wrong
}

func (s Soak) table() string {
	row := func(what string, r Resources) string {
		return fmt.Sprintf("| %s | %.0f | %.0f | %.1f MB | %.1f MB |\n", what, r.Goroutines, r.Files, r.Heap/1e6, r.Resident/1e6)
	}
	return fmt.Sprintf("%d faults in %v, after one round of them that is not counted. The gate at rest:\n\n", s.Faults, s.For.Round(time.Second)) +
		"| | goroutines | open files | heap | resident |\n|---|---|---|---|---|\n" + row("before", s.Before) + row("after", s.After)
}
