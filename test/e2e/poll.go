package e2e

import (
	"testing"
	"time"
)

// Poll calls check until it returns nil; its last error is the failure's text.
func Poll(tb testing.TB, timeout time.Duration, what string, check func() error) {
	tb.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("waited %v for %s: %v", timeout, what, err)
		case <-tb.Context().Done():
			tb.Fatalf("test ended waiting for %s: %v", what, err)
		}
	}
}

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
