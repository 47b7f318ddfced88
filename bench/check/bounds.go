// Package check measures what a request costs on any machine, and compares it with bounds. No bound is a time of day
// or a number of requests per second.
package check

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
)

// Bounds are the most that each case of each measure may be.
type Bounds map[string]map[string]float64

// ReadBounds reads a file of bounds.
func ReadBounds(file string) (Bounds, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", err)
	}
	var b Bounds
	if err := yaml.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("read bounds in %s: %w", file, err)
	}
	return b, nil
}

// Finding is one case of a measure, as measured: the value that is compared, and the spread of all runs.
type Finding struct {
	Measure, Case string
	Value         float64
	Runs          measure.Spread
}

// Compare writes each finding beside its bound, and returns what is wrong: findings above their bounds, findings
// without a bound, and bounds of which nothing was found.
func (b Bounds) Compare(out io.Writer, findings []Finding) (wrong []string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tcase\tmeasured\tat most")
	missing := make(map[string]map[string]float64, len(b))
	for name, cases := range b {
		missing[name] = maps.Clone(cases)
	}
	for _, f := range findings {
		bound, ok := b[f.Measure][f.Case]
		verdict := ""
		switch {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s, %s: there is no bound", f.Measure, f.Case))
		case !(f.Value <= bound): // NaN is above every bound
			verdict = "  EXCEEDED"
			wrong = append(wrong, fmt.Sprintf("%s, %s: %s is above the bound %s", f.Measure, f.Case, short(f.Value), short(bound)))
		}
		delete(missing[f.Measure], f.Case)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", f.Measure, f.Case, spread(f), short(bound), verdict)
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		for _, c := range slices.Sorted(maps.Keys(missing[name])) {
			wrong = append(wrong, fmt.Sprintf("%s, %s: there is a bound, but nothing was measured", name, c))
		}
	}
	_ = w.Flush() // as the writes to out above it
	return wrong
}

// spread shows the value and, if there were several runs, their median, least and greatest value.
func spread(f Finding) string {
	if f.Runs.Least == f.Runs.Greatest {
		return short(f.Value)
	}
	return fmt.Sprintf("%s (median %s, %s–%s)", short(f.Value), short(f.Runs.Median), short(f.Runs.Least), short(f.Runs.Greatest))
}

// short has no more digits than are of interest.
func short(v float64) string {
	switch {
	case v == 0 || v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
