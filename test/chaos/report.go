package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Report is the text of one run, in Markdown, section by section.
type Report struct{ text strings.Builder }

// Add appends a section.
func (r *Report) Add(title, text string) {
	fmt.Fprintf(&r.text, "### %s\n\n%s\n", title, strings.TrimRight(text, "\n")+"\n")
}

// faultTable is what was measured of faults.
func faultTable(all []Figures) string {
	var b strings.Builder
	b.WriteString("| fault | what is done | answers while it lasts | unanswered | without Redis though not hurt | longest Check | open: ≤ 5 ms / p99 | open: slow, and where nobody is asked | recovered | jobs waiting at most | machine stalled / longest Check where nobody is asked |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range all {
		open, pairs := "", ""
		if f.Pairs.N > 0 {
			pairs = fmt.Sprintf("%d and %d of %d (> %v)", f.Pairs.Slow, f.Pairs.Machine, f.Pairs.N, f.Pairs.Over)
		}
		if f.Open > 0 {
			open = fmt.Sprintf("%.1f %% of %d / %v", 100*f.Under5ms, f.Open, round(f.OpenP99))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %d | %d | %v | %s | %s | %v | %d | %v / %v |\n", f.Fault.Name, f.Fault.What, f.answersText(), f.Unanswered,
			f.Missed, round(f.Longest), open, pairs, round(f.Recovered), f.Deepest, round(f.Stall), round(f.Idle))
	}
	return b.String()
}

// admitted is what was measured of who is let in.
type admitted interface {
	seen() string
	wrong() []string // whatever the machine's speed
	late() []string  // targets that were missed
}

// row is one measurement.
type row struct{ name, what, seen string }

func admissionTable(rows []row) string {
	var b strings.Builder
	b.WriteString("| | what is done | seen |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.name, r.what, r.seen)
	}
	return b.String()
}

// The part of a document that a run writes anew.
const (
	figuresBegin = "<!-- figures -->\n"
	figuresEnd   = "<!-- /figures -->\n"
)

// Write puts the report in the place of the figures in file, or, if file does not exist, into a new one.
func (r *Report) Write(file string, at time.Time) error {
	figures := fmt.Sprintf("%sMeasured on %s, %d processors.\n\n%s%s", figuresBegin, at.Format(time.DateOnly), runtime.NumCPU(), r.text.String(), figuresEnd)
	old, err := os.ReadFile(file) //nolint:gosec // whoever runs it names the file
	switch {
	case os.IsNotExist(err):
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			return fmt.Errorf("make the report's folder: %w", err)
		}
	case err != nil:
		return fmt.Errorf("read the report's place: %w", err)
	default:
		before, rest, begins := strings.Cut(string(old), figuresBegin)
		_, after, ends := strings.Cut(rest, figuresEnd)
		if !begins || !ends {
			return fmt.Errorf("%s has no place for figures", file)
		}
		figures = before + figures + after
	}
	if err := os.WriteFile(file, []byte(figures), 0o600); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
