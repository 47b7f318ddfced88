package measure

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// TestWrongAnswers: runs with wrong answers are repeated and counted, but no more of them than a few, and no run more
// than twice.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	g, err := process.NewGroup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		wrong  func(run int) bool
		counts int
		fails  bool
	}{
		"none":       {func(int) bool { return false }, 0, false},
		"a few":      {func(run int) bool { return run == 3 || run == 10 }, 2, false},
		"too many":   {func(run int) bool { return run%5 == 0 }, 0, true},
		"one run":    {func(run int) bool { return run > 15 }, 0, true},
		"from first": {func(int) bool { return true }, 0, true},
	} {
		run := 0
		c := Contender{
			Servers: []*servers.Server{{Process: r.Process}},
			Drive: func(_ context.Context, l load.Load) (result load.Result, err error) {
				l.Begin()
				defer l.End()
				if run++; tt.wrong(run) {
					result.Counts[load.Limited] = 1
				} else {
					result.Counts[load.Allowed] = 1
				}
				result.Took = time.Second
				return result, nil
			},
		}
		table, err := Plan{Rounds: 20, Foreign: 1e9, Progress: io.Discard}.Compare(t.Context(), g, name, 1, []Contender{c})
		switch {
		case tt.fails != errors.Is(err, errWrongAnswers):
			t.Errorf("%s: error %v", name, err)
		case !tt.fails && table.Wrong != tt.counts:
			t.Errorf("%s: %d runs were wrong, want %d", name, table.Wrong, tt.counts)
		}
	}
}
