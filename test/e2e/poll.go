package e2e

import (
	"testing"
	"time"
)

// Pass lets d go by: for what a client is told to wait, not for things to become ready.
func Pass(tb testing.TB, d time.Duration) {
	tb.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-tb.Context().Done():
		tb.Fatal("test ended while waiting")
	}
}
