//go:build chaos

package chaos

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestChaos plays every fault, or those that FAULT names, and reports.
func TestChaos(t *testing.T) {
	e2e.Race = false // times are measured
	only := strings.FieldsFunc(os.Getenv("FAULT"), func(r rune) bool { return r == ',' || r == ' ' })
	for _, scene := range Scenes() {
		faults := slices.DeleteFunc(scene.Faults, func(f Fault) bool { return len(only) > 0 && !slices.Contains(only, f.Name) })
		if len(faults) == 0 {
			continue
		}
		t.Run(scene.Name, func(t *testing.T) {
			w := NewWorld(t, e2e.ShippedConfig, scene.Setup)
			for _, f := range faults {
				figures := w.Play(t, f, Timed(3*time.Second))
				t.Logf("%s: %s; longest %v; open: %d, %.2f %% under 5 ms, p99 %v, worst %v; recovered %v; deepest %d over %d stopped %d unanswered %d", f.Name, figures.answersText(), figures.Longest, figures.Open, 100*figures.Under5ms, figures.OpenP99, figures.OpenWorst, figures.Recovered, figures.Deepest, figures.Over, figures.Stopped, figures.Unanswered)
				for _, wrong := range figures.wrong() {
					t.Errorf("%s: %s", f.Name, wrong)
				}
			}
		})
	}
}
