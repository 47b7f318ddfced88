package measure

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Table is the result of a comparison.
type Table struct {
	InFlight   int
	Contenders []Contender
	Rounds     [][]Sample // by round and contender
	Noisy      int        // runs that other processes disturbed, in spite of the repetitions
	Wrong      int        // runs that were repeated because of wrong answers
}

// Spread is a median with the least and the greatest value.
type Spread struct{ Median, Least, Greatest float64 }

// SpreadOf is the spread of values; not a number without any.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	return Spread{(v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]}
}

// String is "0.81 (0.70–0.92)".
func (s Spread) String() string {
	if math.IsNaN(s.Median) {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Least, s.Greatest)
}

// LowerQuartile is the value that a quarter of values is below; not a number without any.
func LowerQuartile(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(values))[(len(values)-1)/4]
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

// Differences is the spread of the differences of a's number and b's within the rounds.
func (t *Table) Differences(a, b int, f Field) Spread {
	var values []float64
	for _, round := range t.Rounds {
		values = append(values, f(round[a])-f(round[b]))
	}
	return SpreadOf(values)
}

// Ratios are the ratios of a's number to b's within the rounds, without the rounds in which b has none.
func (t *Table) Ratios(a, b int, f Field) (values []float64) {
	for _, round := range t.Rounds {
		if f(round[b]) > 0 {
			values = append(values, f(round[a])/f(round[b]))
		}
	}
	return values
}

// Ratio is the spread of the ratios.
func (t *Table) Ratio(a, b int, f Field) Spread { return SpreadOf(t.Ratios(a, b, f)) }

// Foreign is what other processes used in each run, in cores.
func (t *Table) Foreign() (cores []float64) {
	for _, round := range t.Rounds {
		for _, s := range round {
			cores = append(cores, s.Foreign)
		}
	}
	return cores
}

// The numbers of a sample that are compared.
var (
	Rate       Field = func(s Sample) float64 { return s.Rate }
	P50        Field = func(s Sample) float64 { return s.P50 }
	P99        Field = func(s Sample) float64 { return s.P99 }
	ServerCPU  Field = func(s Sample) float64 { return s.ServerCPU }
	BehindCPU  Field = func(s Sample) float64 { return s.BehindCPU }
	RedisCPU   Field = func(s Sample) float64 { return s.RedisCPU }
	RedisCalls Field = func(s Sample) float64 { return s.RedisCalls }
	RedisTime  Field = func(s Sample) float64 { return s.RedisTime }
	Allocs     Field = func(s Sample) float64 { return s.Allocs }
	Collects   Field = func(s Sample) float64 { return s.GCPerSec }
	ClientCPU  Field = func(s Sample) float64 { return s.ClientCPU }
	Foreign    Field = func(s Sample) float64 { return s.Foreign }
)

// column is one column of the table: what it says of a contender, empty if nothing.
type column struct {
	head string
	cell func(contender int) string
}

// Rows are the table's head and its rows, without the columns that have nothing to say. Ratios are to the first
// contender, and to the one that a contender names.
func (t *Table) Rows() (head []string, rows [][]string) {
	rows = make([][]string, len(t.Contenders))
	for _, c := range t.columns() {
		cells := make([]string, len(t.Contenders))
		empty := true
		for i := range t.Contenders {
			cells[i] = c.cell(i)
			empty = empty && cells[i] == ""
		}
		if empty {
			continue
		}
		head = append(head, c.head)
		for i := range rows {
			rows[i] = append(rows[i], cells[i])
		}
	}
	return head, rows
}

func (t *Table) columns() []column {
	median := func(format string, f Field) func(int) string {
		return func(i int) string {
			v := t.Values(i, f).Median
			if v == 0 || math.IsNaN(v) {
				return ""
			}
			return fmt.Sprintf(format, v)
		}
	}
	to := func(name func(Contender) string, f Field) func(int) string {
		return func(i int) string {
			other := t.Index(name(t.Contenders[i]))
			if other < 0 || t.Values(i, f).Median == 0 || t.Values(other, f).Median == 0 {
				return ""
			}
			return t.Ratio(i, other, f).String()
		}
	}
	first := func(Contender) string { return t.Contenders[0].Name }
	before := func(c Contender) string { return c.Of }
	ruler := func(Contender) string { return t.ruler() }
	return []column{
		{"", func(i int) string { return t.Contenders[i].Name }},
		{"requests/s", median("%.0f", Rate)},
		{"× first row", to(first, Rate)},
		{"× before", to(before, Rate)},
		{"p50 µs", median("%.0f", P50)},
		{"p99 µs", median("%.0f", P99)},
		{"p99 × first row", to(first, P99)},
		{"p99 × before", to(before, P99)},
		{"CPU µs", median("%.1f", ServerCPU)},
		{"of it behind Envoy", median("%.1f", BehindCPU)},
		{"CPU × before", to(before, ServerCPU)},
		{"Redis CPU µs", median("%.1f", RedisCPU)},
		{"Redis calls", median("%.3f", RedisCalls)},
		{"Redis µs", median("%.1f", RedisTime)},
		{"Redis µs × `return 0`", to(ruler, RedisTime)},
		{"allocations", median("%.0f", Allocs)},
		{"GC/s", median("%.0f", Collects)},
		{"client CPU µs", median("%.1f", ClientCPU)},
		{"allowed/limited/shed/failed %", t.shares},
		{"foreign cores", median("%.2f", Foreign)},
	}
}

func (t *Table) ruler() string {
	for _, c := range t.Contenders {
		if c.Ruler {
			return c.Name
		}
	}
	return ""
}

func (t *Table) shares(i int) string {
	var parts []string
	for v := range len(Sample{}.Share) {
		parts = append(parts, fmt.Sprintf("%.4g", 100*t.Values(i, func(s Sample) float64 { return s.Share[v] }).Median))
	}
	return strings.Join(parts, "/")
}
