// Package report writes what was measured as Markdown, with plots.
package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
)

// Report is what was measured so far.
type Report struct {
	body    bytes.Buffer
	notes   map[Goal][]note
	charts  []file
	foreign []float64
	noisy   int
	wrong   int
}

type file struct {
	name string
	svg  []byte
}

// New returns an empty report.
func New() *Report { return &Report{notes: make(map[Goal][]note)} }

// Section begins a section.
func (r *Report) Section(title, about string) {
	fmt.Fprintf(&r.body, "\n## %s\n\n%s\n", title, about)
}

// Table adds a comparison.
func (r *Report) Table(t *measure.Table) {
	r.Compared(t)
	fmt.Fprintf(&r.body, "\n**%d in flight**, %d rounds\n", t.InFlight, len(t.Rounds))
	head, rows := t.Rows()
	r.Rows(head, rows)
}

// Rows adds a table.
func (r *Report) Rows(head []string, rows [][]string) {
	fmt.Fprintf(&r.body, "\n| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(&r.body, "| %s |\n", strings.Join(row, " | "))
	}
}

// Compared adds what disturbed a comparison.
func (r *Report) Compared(t *measure.Table) {
	r.Runs(t.Foreign()...)
	r.noisy += t.Noisy
	r.wrong += t.Wrong
}

// Runs adds what other processes used in runs, in cores.
func (r *Report) Runs(foreign ...float64) { r.foreign = append(r.foreign, foreign...) }

// Chart adds a plot.
func (r *Report) Chart(name string, c Chart) error {
	svg, err := c.svg()
	if err != nil {
		return fmt.Errorf("draw %s: %w", name, err)
	}
	r.charts = append(r.charts, file{name, svg})
	fmt.Fprintf(&r.body, "\n![%s](%s)\n", c.Title, name)
	return nil
}

// Markdown is the whole report, after an introduction.
func (r *Report) Markdown(introduction string) []byte {
	return append([]byte(introduction+r.goals()), r.body.Bytes()...)
}

// Disturbed says how much other processes used of the machine while it was measured.
func (r *Report) Disturbed() string {
	if len(r.foreign) == 0 {
		return "no runs"
	}
	s := measure.SpreadOf(r.foreign)
	return fmt.Sprintf("other processes used %.2f cores in the median of %d runs and %.2f at most; %d runs stayed above the limit after their repetitions; %d runs were repeated because of wrong answers",
		max(0, s.Median), len(r.foreign), max(0, s.Greatest), r.noisy, r.wrong)
}

// Write writes README.md and the plots into a folder.
func (r *Report) Write(dir, introduction string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create the report's folder: %w", err)
	}
	for _, f := range append(r.charts, file{"README.md", r.Markdown(introduction)}) {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.svg, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return nil
}
