package chaos

import (
	"testing"
	"time"
)

// TestAdmission plays briefly what `make chaos` measures. Whether a client that waits as it is told finds room, and
// whether the state flaps, is the gate's doing and asserted here too. What depends on the machine's speed is only logged.
func TestAdmission(t *testing.T) {
	report := func(t *testing.T, f interface{ wrong() []string }, more ...string) {
		t.Helper()
		t.Logf("%+v", f)
		for _, wrong := range append(f.wrong(), more...) {
			t.Error(wrong)
		}
	}
	t.Run("bursts", func(t *testing.T) { t.Parallel(); report(t, PlayBursts(t, 3)) })
	t.Run("drained", func(t *testing.T) { t.Parallel(); report(t, PlayDrained(t, 4*time.Second)) })
	t.Run("threshold", func(t *testing.T) {
		t.Parallel()
		f := PlayThreshold(t, 4*time.Second)
		report(t, f, f.late()...)
	})
	t.Run("retry-after", func(t *testing.T) {
		t.Parallel()
		f := PlayRetryAfter(t, 30)
		report(t, f, f.late()...)
	})
	for name, share := range map[string]float64{"shares": recommendedShare, "no shares": 0} {
		t.Run(name, func(t *testing.T) { t.Parallel(); report(t, PlayShares(t, share, true, 5*time.Second)) })
	}
	t.Run("priority", func(t *testing.T) { t.Parallel(); report(t, PlayPriority(t, 5*time.Second)) })
	t.Run("crowd", func(t *testing.T) { t.Parallel(); report(t, PlayCrowd(t, 3)) })
	t.Run("script time", func(t *testing.T) { t.Parallel(); report(t, PlayScriptTime(t, 9)) })
	t.Run("two bursts", func(t *testing.T) { t.Parallel(); report(t, PlayTwoBursts(t, 3)) })
	for _, trouble := range []Trouble{NoTrouble, Retries, Aborts, PastGate} {
		t.Run("counts, "+string(trouble), func(t *testing.T) { t.Parallel(); report(t, PlayCounts(t, trouble, 6*time.Second)) })
	}
	t.Run("fairness", func(t *testing.T) { t.Parallel(); report(t, PlayFairness(t, 5*time.Second)) })
}
