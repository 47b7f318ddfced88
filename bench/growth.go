package main

import (
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
)

// brief is the longest warm-up where something grows.
const brief = 500 * time.Millisecond

// growth is the plan for what grows: many steps, each in fewer rounds.
func (b *bench) growth() measure.Plan {
	p := b.plan
	p.Rounds, p.Measure = max(1, p.Rounds/2), p.Measure*2/3
	return p
}

// powers are the powers of ten within bounds.
func powers(from, to int) (all []int) {
	for n := from; n <= to; n *= 10 {
		all = append(all, n)
	}
	return all
}
