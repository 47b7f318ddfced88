package breaker_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/breaker"
	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
)

var (
	errDown  = errors.New("down")
	errOther = errors.New("not Redis's fault")
)

const timeout = time.Second

func newBreaker(t *testing.T) (*breaker.Breaker, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	return breaker.New(breaker.Settings{
		Name: "test", Failures: 3, Timeout: timeout,
		Ignore: func(err error) bool { return errors.Is(err, errOther) },
	}, slog.New(slog.NewTextHandler(&log, nil))), &log
}

func answer(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

func wantOpen(t *testing.T, b *breaker.Breaker, want bool) {
	t.Helper()
	if b.Open() != want {
		t.Fatalf("open: %v, want %v", b.Open(), want)
	}
}

// fail makes n calls that fail.
func fail(t *testing.T, b *breaker.Breaker, n int) {
	t.Helper()
	for range n {
		if err := b.Do(t.Context(), answer(errDown)); !errors.Is(err, errDown) {
			t.Fatalf("Do returned %v, want what Redis said", err)
		}
	}
}

func TestOpensAfterFailuresInARow(t *testing.T) {
	t.Parallel()
	b, log := newBreaker(t)
	fail(t, b, 2)
	if err := b.Do(t.Context(), answer(nil)); err != nil {
		t.Fatal(err)
	}
	fail(t, b, 2)
	wantOpen(t, b, false)
	fail(t, b, 1)
	wantOpen(t, b, true)
	asked := false
	err := b.Do(t.Context(), func(context.Context) error { asked = true; return nil })
	if !errors.Is(err, breaker.ErrOpen) || asked {
		t.Errorf("open: Do returned %v, asked: %v", err, asked)
	}
	if n := strings.Count(log.String(), "Redis lost"); n != 1 || !strings.Contains(log.String(), "breaker=test") {
		t.Errorf("logged %d times, want once with the name: %s", n, log)
	}
}

func TestIgnoredErrors(t *testing.T) {
	t.Parallel()
	b, _ := newBreaker(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if err := b.Do(t.Context(), answer(errOther)); !errors.Is(err, errOther) {
			t.Fatalf("Do returned %v", err)
		}
		if err := b.Do(gone, answer(errDown)); !errors.Is(err, context.Canceled) {
			t.Fatalf("for a caller that went away, Do returned %v", err)
		}
	}
	wantOpen(t, b, false)
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for range 3 { // a deadline that passed is Redis's fault
		if err := b.Do(late, answer(context.DeadlineExceeded)); err == nil {
			t.Fatal("no error")
		}
	}
	wantOpen(t, b, true)
}

// TestProbes: requests never find out whether Redis is back. Probes do, once the
// timeout is over, if the answer comes in time.
func TestProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, log := newBreaker(t)
		fail(t, b, 3)
		if err := b.Probe(t.Context(), answer(nil)); err != nil {
			t.Fatalf("a probe before the timeout returned %v, want Redis's answer", err)
		}
		wantOpen(t, b, true)
		after(timeout + time.Millisecond)
		if err := b.Do(t.Context(), answer(nil)); !errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("a request after the timeout got %v", err)
		}
		slow := func(context.Context) error { after(300 * time.Millisecond); return nil }
		if err := b.Probe(t.Context(), slow); err != nil {
			t.Fatalf("a slow probe returned %v, want Redis's answer", err)
		}
		wantOpen(t, b, true)
		after(timeout + time.Millisecond)
		if err := b.Probe(t.Context(), answer(errDown)); !errors.Is(err, errDown) {
			t.Fatalf("a probe that failed returned %v", err)
		}
		wantOpen(t, b, true)
		after(timeout + time.Millisecond)
		if err := b.Probe(t.Context(), answer(nil)); err != nil {
			t.Fatal(err)
		}
		wantOpen(t, b, false)
		if lost, back := strings.Count(log.String(), "Redis lost"), strings.Count(log.String(), "Redis is back"); lost != 1 || back != 1 {
			t.Errorf("logged %d losses and %d returns, want one each:\n%s", lost, back, log)
		}
	})
}

func TestMetric(t *testing.T) {
	t.Parallel()
	b, _ := newBreaker(t)
	reg := prometheus.NewRegistry()
	breaker.Register(reg, "test", b.Open)
	for _, want := range []float64{0, 1} {
		if got := metrictest.Value(t, reg, "refrakt_gate_breaker_open", "breaker", "test"); got != want {
			t.Errorf("gauge is %v, want %v", got, want)
		}
		if want == 0 {
			fail(t, b, 3)
		}
	}
}

func after(d time.Duration) { <-time.NewTimer(d).C }
