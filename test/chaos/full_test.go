//go:build chaos

package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// report is where figures go: CHAOS_REPORT, which `make chaos` sets for docs/reliability.md, or a file beside this one.
func writeReport(t *testing.T, r *Report) {
	t.Helper()
	file := os.Getenv("CHAOS_REPORT")
	if file == "" {
		file = filepath.Join(e2e.Root(), "test", "chaos", "report", "report.md")
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := r.Write(file, time.Now()); err != nil {
		t.Fatal(err)
	}
	t.Logf("the report: %s", file)
}

// chosen says whether this fault or measurement is to be run: all are, or those that FAULT names.
func chosen(name string) bool {
	only := strings.FieldsFunc(os.Getenv("FAULT"), func(r rune) bool { return r == ',' || r == ' ' })
	return len(only) == 0 || slices.Contains(only, name)
}

// TestChaos plays every fault and measures who is let in, or what of it FAULT names, and reports.
func TestChaos(t *testing.T) {
	e2e.Race = false // times are measured
	var all []Figures
	for _, scene := range Scenes() {
		faults := slices.DeleteFunc(scene.Faults, func(f Fault) bool { return !chosen(f.Name) })
		if len(faults) == 0 {
			continue
		}
		t.Run(scene.Name, func(t *testing.T) {
			w := NewWorld(t, e2e.ShippedConfig, scene.Setup)
			for _, f := range faults {
				figures := w.Play(t, f, Timed(3*time.Second))
				all = append(all, figures)
				t.Logf("%s: %s; recovered after %v", f.Name, figures.answersText(), round(figures.Recovered))
				for _, wrong := range slices.Concat(figures.wrong(redisTimeout), figures.late()) {
					t.Errorf("%s: %s", f.Name, wrong)
				}
			}
		})
	}
	var r Report
	playAdmission(t, &r)
	if len(all) > 0 {
		r.Add("Faults", faultTable(all))
	}
	writeReport(t, &r)
}

// TestSoak plays the faults of Redis for SOAK, 10 minutes if that is not set.
func TestSoak(t *testing.T) {
	e2e.Race = false
	d := 10 * time.Minute
	if s := os.Getenv("SOAK"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatalf("SOAK: %v", err)
		}
	}
	// It is not about time: a machine that stalls is no fault of the gate.
	w := NewWorld(t, e2e.PatientConfig(t), Setup{})
	s := w.Soak(t, d, func(f Figures) {
		t.Logf("%s: recovered after %v", f.Fault.Name, round(f.Recovered))
		for _, wrong := range f.wrong(redisTimeout) {
			t.Errorf("%s: %s", f.Fault.Name, wrong)
		}
	})
	for _, wrong := range s.wrong() {
		t.Error(wrong)
	}
	t.Logf("\n%s", s.table())
}
