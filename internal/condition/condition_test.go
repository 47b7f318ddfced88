package condition_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/condition"
)

func TestEachChangeIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := condition.New(slog.New(slog.NewTextHandler(&log, nil)), "it fails", "it works again").Quiet(time.Second)
		want := func(fails, works int) {
			t.Helper()
			if f, w := strings.Count(log.String(), "it fails"), strings.Count(log.String(), "it works again"); f != fails || w != works {
				t.Fatalf("logged %d failures and %d recoveries, want %d and %d:\n%s", f, w, fails, works, &log)
			}
		}
		c.Succeed()
		want(0, 0)
		c.Fail(errors.New("why"), "port", "grpc")
		c.Fail(errors.New("why"))
		want(1, 0)
		if !strings.Contains(log.String(), "error=why port=grpc") {
			t.Errorf("the cause is missing: %s", &log)
		}
		c.Fail(errors.New("another reason")) // too early
		want(1, 0)
		time.Sleep(10 * time.Second)
		c.Fail(errors.New("why"))
		want(1, 0)
		c.Fail(errors.New("another reason"))
		c.Fail(errors.New("another reason"))
		want(2, 0)
		c.Succeed() // too early
		want(2, 0)
		time.Sleep(time.Second)
		c.Succeed()
		c.Succeed()
		want(2, 1)
		c.Fail(errors.New("another reason"))
		want(3, 1)
	})
}
