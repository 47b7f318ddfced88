// Package polltest waits in tests for what comes about by itself.
package polltest

import (
	"context"
	"errors"
	"testing"
	"time"
)

// interval is the time between two checks.
const interval = 10 * time.Millisecond

// Wait calls check until it returns nil, or ctx ends; then it returns check's last error.
func Wait(ctx context.Context, check func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Until calls check until it returns nil. If that takes longer than timeout, or longer
// than the test, the test fails with the last error.
func Until(tb testing.TB, timeout time.Duration, what string, check func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	if err := Wait(ctx, check); err != nil {
		tb.Fatalf("waited for %s, %v at most: %v", what, timeout, err)
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
