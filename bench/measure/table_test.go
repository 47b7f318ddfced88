package measure

import (
	"math"
	"slices"
	"testing"
)

func twoRounds() *Table {
	return &Table{
		InFlight:   50,
		Contenders: []Contender{{Name: "no-op"}, {Name: "before"}, {Name: "after", Of: "before"}, {Name: "Redis", Ruler: true}},
		Rounds: [][]Sample{
			{{Rate: 100}, {Rate: 20, RedisTime: 22}, {Rate: 60, RedisTime: 7}, {Rate: 200, RedisTime: 1}},
			{{Rate: 50}, {Rate: 5, RedisTime: 44}, {Rate: 40, RedisTime: 14}, {Rate: 100, RedisTime: 2}},
			{{Rate: 10}, {Rate: 2, RedisTime: 24}, {Rate: 5, RedisTime: 8}, {Rate: 20, RedisTime: 1}},
		},
	}
}

// TestRatiosAreOfOneRound: a machine that is half as fast in one round changes no ratio.
func TestRatiosAreOfOneRound(t *testing.T) {
	t.Parallel()
	table := twoRounds()
	for name, tt := range map[string]struct{ got, want Spread }{
		"rate to the no-op":   {table.Ratio(2, 0, Rate), Spread{0.6, 0.5, 0.8}},
		"rate to before":      {table.Ratio(2, 1, Rate), Spread{3, 2.5, 8}},
		"Redis time to ruler": {table.Ratio(1, 3, RedisTime), Spread{22, 22, 24}},
		"rates":               {table.Values(0, Rate), Spread{50, 10, 100}},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, tt.got, tt.want)
		}
	}
	if got := table.Ratio(1, 0, RedisTime); !math.IsNaN(got.Median) || got.String() != "-" {
		t.Errorf("ratio to nothing: %+v, %s; want no number", got, got)
	}
}

// TestRowsSayWhatThereIs: each ratio stands where there is something to compare with, and empty columns are left out.
func TestRowsSayWhatThereIs(t *testing.T) {
	t.Parallel()
	head, rows := twoRounds().Rows()
	cell := func(row int, column string) string {
		i := slices.Index(head, column)
		if i < 0 {
			return "no such column"
		}
		return rows[row][i]
	}
	for _, tt := range []struct {
		row          int
		column, want string
	}{
		{0, "", "no-op"},
		{0, "requests/s", "50"},
		{2, "× first row", "0.60 (0.50–0.80)"},
		{1, "× before", ""},
		{2, "× before", "3.00 (2.50–8.00)"},
		{0, "Redis µs × `return 0`", ""},
		{1, "Redis µs × `return 0`", "22.00 (22.00–24.00)"},
		{1, "allocations", "no such column"},
	} {
		if got := cell(tt.row, tt.column); got != tt.want {
			t.Errorf("row %d, column %q: %q, want %q", tt.row, tt.column, got, tt.want)
		}
	}
}

func TestLowerQuartile(t *testing.T) {
	t.Parallel()
	if got := LowerQuartile([]float64{9, 5, 1, 3, 7}); got != 3 {
		t.Errorf("%v, want 3", got)
	}
	if got := LowerQuartile(nil); !math.IsNaN(got) {
		t.Errorf("of nothing: %v, want no number", got)
	}
}

func TestMedianOfAnEvenNumber(t *testing.T) {
	t.Parallel()
	if got, want := SpreadOf([]float64{4, 1, 3, 2}), (Spread{2.5, 1, 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
