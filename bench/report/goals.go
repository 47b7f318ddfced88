package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
)

// Goal is one of the goals.
type Goal int

// The goals.
const (
	AllowedRate Goal = iota
	AllowedP99
	RefusedRate
	RefusedCalls
	ShedRate
	ShedCalls
	RunRate
	Allocations
	RedisTime
	RedisCalls
	EnvoyRate
	EnvoyPeer
	EnvoyP50
	IdleCPU
	IdleRedis
	MemorySize
	MemoryShared
)

// goals say what is measured, what it was before the work on the gate's speed began, and what it must be.
var goals = [...]struct {
	what, before, want string
	atLeast, atMost    float64 // of these two, the one that is not 0, with some room where it is counted in single pieces
}{
	AllowedRate:  {"allowed callers: requests/s, × no-op with a raw codec", "0.17, 0.22", "≥ 0.65", 0.65, 0},
	AllowedP99:   {"allowed callers: p99, × the same no-op", "4.6, 3.3", "≤ 1.6", 0, 1.6},
	RefusedRate:  {"refused callers: requests/s, × the same no-op", "0.20, 0.27", "≥ 0.8", 0.8, 0},
	RefusedCalls: {"refused callers: Redis calls per Check; one for each caller and token gained", "1", "≤ 0.02", 0, 0.02},
	ShedRate:     {"shed by a full queue: requests/s, × the same no-op", "0.45", "≥ 0.85", 0.85, 0},
	ShedCalls:    {"shed by a full queue, `/run`: Redis calls a second", "1400", "≤ 20", 0, 22},
	RunRate:      {"`/run`: requests/s, × `/assistant`", "0.66–0.75", "≥ 0.9", 0.9, 0},
	Allocations:  {"allocations per Check of the whole server", "223", "≤ 70", 0, 70},
	RedisTime:    {"allowed callers: Redis time per take, × `EVALSHA` of `return 0`", "22", "≤ 7", 0, 7},
	RedisCalls:   {"allowed callers: Redis calls per Check", "1", "≤ 0.2", 0, 0.2},
	EnvoyRate:    {"through Envoy: requests/s, × a no-op with the gate's answer", "0.7", "≥ 0.95", 0.95, 0},
	EnvoyPeer:    {"through Envoy: requests/s, × envoyproxy/ratelimit", "0.9", "> 1", 1, 0},
	EnvoyP50:     {"through Envoy: p50, µs above that no-op's", "+ 274", "≤ + 120", 0, 120},
	IdleCPU:      {"idle beside 10⁵ waiting jobs of 4 kB: CPU of the gate, ms/s", "78", "≤ 10", 0, 10},
	IdleRedis:    {"idle beside 10⁵ waiting jobs of 4 kB: CPU of Redis, samples and all else, ms/s", "21", "≤ 5", 0, 5},
	MemorySize:   {"10⁶ live callers in memory: MB of the gate", "110", "≤ 100", 0, 100},
	MemoryShared: {"10⁶ live callers in memory: callers refused because they share a bucket", "869000", "0", 0, 0.5},
}

type note struct {
	label string
	value measure.Spread
}

// Note says what a goal's measure was found to be, with a label such as "50 in flight".
func (r *Report) Note(g Goal, label string, v measure.Spread) {
	r.notes[g] = append(r.notes[g], note{label, v})
}

// goals is the table of the goals that were measured.
func (r *Report) goals() string {
	var b strings.Builder
	for g, goal := range goals {
		notes := r.notes[Goal(g)]
		if len(notes) == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n## Goals\n\nMedians, with the least and the greatest value of all rounds.\n\n" +
				"| measure | before | goal | measured | met |\n|---|---|---|---|---|\n")
		}
		met := "yes"
		var found []string
		for _, n := range notes {
			found = append(found, strings.TrimPrefix(n.label+": "+number(n.value), ": "))
			if v := n.value.Median; math.IsNaN(v) || goal.atLeast > 0 && v < goal.atLeast || goal.atMost > 0 && v > goal.atMost {
				met = "**no**"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", goal.what, goal.before, goal.want, strings.Join(found, "; "), met)
	}
	return b.String()
}

// number shows a spread with as many digits as it needs.
func number(s measure.Spread) string {
	digits := 0
	switch {
	case math.IsNaN(s.Median):
		return "not measured"
	case s.Median == 0:
	case math.Abs(s.Median) < 0.1:
		digits = 4
	case math.Abs(s.Median) < 10:
		digits = 2
	case math.Abs(s.Median) < 100:
		digits = 1
	}
	if s.Least == s.Greatest {
		return fmt.Sprintf("%.*f", digits, s.Median)
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.Median, digits, s.Least, digits, s.Greatest)
}
