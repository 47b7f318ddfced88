// Package polltest waits in tests for what comes about by itself.
package polltest

import (
	"errors"
	"testing"
	"time"
)

// Until calls check until it returns nil. If that takes longer than timeout the test
// fails with the last error.
func Until(tb testing.TB, timeout time.Duration, what string, check func() error) {
	tb.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
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

// True is Until with an answer instead of an error, and a generous timeout.
func True(tb testing.TB, what string, ask func() bool) {
	tb.Helper()
	Until(tb, 20*time.Second, what, func() error {
		if ask() {
			return nil
		}
		return errors.New("not yet")
	})
}
