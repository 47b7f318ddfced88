package chaos

import (
	"testing"
	"time"
)

// TestAdmission plays briefly what `make chaos` measures. What depends on the machine's speed is only logged.
func TestAdmission(t *testing.T) {
	report := func(t *testing.T, f interface{ wrong() []string }) {
		t.Helper()
		t.Logf("%+v", f)
		for _, wrong := range f.wrong() {
			t.Error(wrong)
		}
	}
	t.Run("bursts", func(t *testing.T) { t.Parallel(); report(t, PlayBursts(t, 3)) })
	t.Run("drained", func(t *testing.T) { t.Parallel(); report(t, PlayDrained(t, 4*time.Second)) })
	t.Run("threshold", func(t *testing.T) { t.Parallel(); report(t, PlayThreshold(t, 4*time.Second)) })
	t.Run("retry-after", func(t *testing.T) { t.Parallel(); report(t, PlayRetryAfter(t, 30)) })
	t.Run("fairness", func(t *testing.T) { t.Parallel(); report(t, PlayFairness(t, 5*time.Second)) })
}
