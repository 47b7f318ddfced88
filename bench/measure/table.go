package measure

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Table is the result of a comparison.
type Table struct {
	InFlight   int
	Contenders []Contender
	Rounds     [][]Sample // by round and contender
	Noisy      int        // runs that other processes disturbed, in spite of the repetitions
}

// Spread is a median with the least and the greatest value.
type Spread struct{ Median, Least, Greatest float64 }

// SpreadOf is the spread of values; all 0 without any.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	return Spread{(v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]}
}

// String is "0.81 (0.70–0.92)".
func (s Spread) String() string {
	if s == (Spread{}) {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Least, s.Greatest)
}

// Field picks a number of a sample.
type Field func(Sample) float64

// Index is the place of the contender with that name, -1 if there is none.
func (t *Table) Index(name string) int {
	return slices.IndexFunc(t.Contenders, func(c Contender) bool { return c.Name == name })
}

// Values is the spread of a number of one contender over the rounds.
func (t *Table) Values(contender int, f Field) Spread {
	var values []float64
	for _, round := range t.Rounds {
		values = append(values, f(round[contender]))
	}
	return SpreadOf(values)
}

// Ratio is the spread of the ratios of a to b within the rounds.
func (t *Table) Ratio(a int, f Field, b int, g Field) Spread {
	var values []float64
	for _, round := range t.Rounds {
		if by := g(round[b]); by > 0 {
			values = append(values, f(round[a])/by)
		}
	}
	return SpreadOf(values)
}

func (t *Table) ruler() int {
	return slices.IndexFunc(t.Contenders, func(c Contender) bool { return c.Ruler })
}

// The numbers of a sample that tables compare.
func rate(s Sample) float64      { return s.Rate }
func p99(s Sample) float64       { return s.P99 }
func serverCPU(s Sample) float64 { return s.ServerCPU }
func redisTime(s Sample) float64 { return s.RedisTime }

// Write writes the table as Markdown. Ratios are to the first contender, and to the one that a contender names.
func (t *Table) Write(out io.Writer) {
	quiet := ""
	if t.Noisy > 0 {
		quiet = fmt.Sprintf("; other processes disturbed %d of %d runs", t.Noisy, len(t.Rounds)*len(t.Contenders))
	}
	fmt.Fprintf(out, "\n**%d in flight**, %d rounds%s\n\n", t.InFlight, len(t.Rounds), quiet)
	head := []string{
		"", "requests/s", "× first", "× of before", "p50 / p99 µs", "p99 × first", "p99 × of before", "CPU µs", "CPU × of before",
		"Redis CPU µs", "Redis calls", "Redis µs", "× `return 0`", "allocs", "GC/s", "client CPU µs", "allowed/limited/shed/failed %", "foreign cores",
	}
	fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for i, c := range t.Contenders {
		med := func(f Field) float64 { return t.Values(i, f).Median }
		with := func(name string, f Field) string {
			other := t.Index(name)
			if name == "" || other < 0 {
				return ""
			}
			return t.Ratio(i, f, other, f).String()
		}
		ruled := ""
		if ruler := t.ruler(); ruler >= 0 && med(redisTime) > 0 {
			ruled = t.Ratio(i, redisTime, ruler, redisTime).String()
		}
		first := t.Contenders[0].Name
		cells := []string{
			c.Name, fmt.Sprintf("%.0f", med(rate)), with(first, rate), with(c.Of, rate),
			fmt.Sprintf("%.0f / %.0f", med(func(s Sample) float64 { return s.P50 }), med(p99)), with(first, p99), with(c.Of, p99),
			t.cpuCell(i), with(c.Of, serverCPU),
			fmt.Sprintf("%.1f", med(func(s Sample) float64 { return s.RedisCPU })),
			fmt.Sprintf("%.3f", med(func(s Sample) float64 { return s.RedisCalls })),
			fmt.Sprintf("%.1f", med(redisTime)), ruled,
			fmt.Sprintf("%.0f", med(func(s Sample) float64 { return s.Allocs })),
			fmt.Sprintf("%.0f", med(func(s Sample) float64 { return s.GCPerSec })),
			fmt.Sprintf("%.1f", med(func(s Sample) float64 { return s.ClientCPU })),
			t.shares(i), fmt.Sprintf("%.2f", med(func(s Sample) float64 { return s.Foreign })),
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
}

func (t *Table) cpuCell(i int) string {
	cell := fmt.Sprintf("%.1f", t.Values(i, serverCPU).Median)
	if behind := t.Values(i, func(s Sample) float64 { return s.BehindCPU }).Median; behind > 0 {
		cell += fmt.Sprintf(" (%.1f behind)", behind)
	}
	return cell
}

func (t *Table) shares(i int) string {
	var parts []string
	for v := range len(Sample{}.Share) {
		parts = append(parts, fmt.Sprintf("%.4g", 100*t.Values(i, func(s Sample) float64 { return s.Share[v] }).Median))
	}
	return strings.Join(parts, "/")
}
