package report

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
)

// TestGoals: a goal is met if all that was noted of it is, never if a number is missing. A goal of which nothing was noted is
// left out.
func TestGoals(t *testing.T) {
	t.Parallel()
	r := New()
	r.Note(AllowedRate, "50 in flight", measure.Spread{Median: 0.7, Least: 0.6, Greatest: 0.8})
	r.Note(AllowedRate, "200 in flight", measure.Spread{Median: 0.65, Least: 0.6, Greatest: 0.8})
	r.Note(RunRate, "50 in flight", measure.Spread{Median: 0.95, Least: 0.9, Greatest: 1})
	r.Note(RunRate, "200 in flight", measure.Spread{Median: 0.89, Least: 0.8, Greatest: 1})
	r.Note(MemoryShared, "", measure.Spread{})
	r.Note(MemorySize, "", measure.SpreadOf([]float64{110}))
	r.Note(AllowedP99, "50 in flight", measure.SpreadOf(nil))
	r.Note(RefusedRate, "50 in flight", measure.SpreadOf([]float64{math.NaN()}))
	r.Note(EnvoyP50, "1 in flight", measure.SpreadOf([]float64{-5}))
	text := r.goals()
	for _, want := range []string{
		"| ≥ 0.65 | 50 in flight: 0.70 (0.60–0.80); 200 in flight: 0.65 (0.60–0.80) | yes |",
		"| ≥ 0.9 | 50 in flight: 0.95 (0.90–1.00); 200 in flight: 0.89 (0.80–1.00) | **no** |",
		"| ≤ 100 | 110 | **no** |",
		"| 0 | 0 | yes |",
		"| ≤ 1.6 | 50 in flight: not measured | **no** |",
		"| ≥ 0.8 | 50 in flight: not measured | **no** |",
		"| ≤ + 120 | 1 in flight: -5.00 | yes |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\n| "); n != 1+7 {
		t.Errorf("%d rows, want a head and 7 goals:\n%s", n, text)
	}
}

// TestDisturbed: what disturbed all comparisons is added up.
func TestDisturbed(t *testing.T) {
	t.Parallel()
	r := New()
	for range 2 {
		r.Compared(&measure.Table{Rounds: [][]measure.Sample{{{Foreign: 0.1}}}, Noisy: 2, Wrong: 3})
	}
	for _, want := range []string{"2 runs", "; 4 runs stayed above", "; 6 runs were repeated because of wrong answers"} {
		if text := r.Disturbed(); !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

// TestWrite: the folder has the document and the plots that it shows, with all names in them.
func TestWrite(t *testing.T) {
	t.Parallel()
	r, dir := New(), t.TempDir()
	r.Section("Callers", "Many.")
	if err := r.Chart("callers.svg", Chart{Title: "requests per second", X: "callers", Steps: []string{"100", "1000"},
		Series: []Series{{"in Redis", []float64{3, 4}}, {"in memory", []float64{5}}}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Write(dir, "# Title\n"); err != nil {
		t.Fatal(err)
	}
	for file, wants := range map[string][]string{
		"README.md":   {"# Title\n", "## Callers\n\nMany.\n", "![requests per second](callers.svg)"},
		"callers.svg": {"<svg", ">requests per second</text>", ">in Redis</text>", ">in memory</text>", ">1000</text>"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in %s", want, file)
			}
		}
	}
}
