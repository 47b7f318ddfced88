//go:build chaos

package chaos

import (
	"slices"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestChaosAdmission measures who is let in, or what of it FAULT names.
func TestChaosAdmission(t *testing.T) {
	e2e.Race = false
	type figures interface {
		wrong() []string
		late() []string
	}
	for _, m := range []struct {
		name string
		play func(testing.TB) figures
	}{
		{"admission-bursts", func(tb testing.TB) figures { return PlayBursts(tb, 20) }},
		{"admission-drained", func(tb testing.TB) figures { return PlayDrained(tb, 10*time.Second) }},
		{"admission-threshold", func(tb testing.TB) figures { return PlayThreshold(tb, time.Minute) }},
		{"admission-told", func(tb testing.TB) figures { return PlayTold(tb, 150) }},
		{"admission-shares", func(tb testing.TB) figures { return PlayShares(tb, time.Minute) }},
	} {
		if !chosen(m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			f := m.play(t)
			t.Logf("%+v", f)
			for _, wrong := range slices.Concat(f.wrong(), f.late()) {
				t.Error(wrong)
			}
		})
	}
}
