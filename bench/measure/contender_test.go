package measure

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

const answers = 1000

// asking is a contender that gives answers by commands of Redis, the same ones for each answer.
func asking(r *servers.Redis, commands ...[]any) *Contender {
	return &Contender{
		Servers: []*servers.Server{{Process: r.Process, Addr: r.Addr, Redis: r}}, NeedsRedis: true,
		Drive: func(ctx context.Context, l load.Load) (result load.Result, err error) {
			l.Begin()
			defer l.End()
			result.Counts[load.Allowed], result.Took = answers, time.Second
			for range answers {
				for _, command := range commands {
					if err := r.Do(ctx, command...).Err(); err != nil {
						return result, err
					}
				}
			}
			return result, nil
		},
	}
}

// TestCallsOfRedis: every script counts, by hash or not, and so do the commands of a limiter without scripts, but not the
// commands of a script. Answers by commands that are not counted, or without Redis, are an error.
func TestCallsOfRedis(t *testing.T) {
	t.Parallel()
	g, err := process.NewGroup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	const script = "redis.call('INCR', 'a') return redis.call('INCR', 'b')"
	eval, sample := []any{"EVAL", script, 0}, []any{"EVAL", "return 0", 0}
	for i, tt := range []struct {
		name     string
		commands [][]any
		calls    float64
		err      string
	}{
		{"EVAL", [][]any{eval}, 1, ""},
		{"EVAL twice", [][]any{eval, sample}, 2, ""},
		{"INCR", [][]any{{"INCR", "a"}}, 1, ""},
		{"a kind that is not counted", [][]any{{"HINCRBY", "a", "b", 1}}, 0, "only 0 calls are of a kind that is counted"},
		{"nothing", nil, 0, "without Redis"},
	} {
		r, err := servers.StartRedis(g, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		s, err := asking(r, tt.commands...).Exactly(t.Context(), g, 1, answers)
		switch {
		case tt.err == "" && (err != nil || s.RedisCalls != tt.calls || s.RedisTime <= 0):
			t.Errorf("%s: %v calls, %v µs, error %v; want %v calls", tt.name, s.RedisCalls, s.RedisTime, err, tt.calls)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
	}
}

// TestMissingMetric: a server that says nothing of its allocations any more is an error; one that never did has no number.
func TestMissingMetric(t *testing.T) {
	t.Parallel()
	text := "go_memstats_mallocs_total 7\ngo_gc_duration_seconds_count 2\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
	defer s.Close()
	c := Contender{Servers: []*servers.Server{{Allocations: s.URL}}}
	if allocs, collections, err := c.allocations(t.Context()); allocs != 7 || collections != 2 || err != nil {
		t.Errorf("%v allocations, %v collections, error %v; want 7 and 2", allocs, collections, err)
	}
	for _, text = range []string{"go_gc_duration_seconds_count 2\n", "go_memstats_mallocs_total 7\n"} {
		if _, _, err := c.allocations(t.Context()); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	c.Servers[0].Allocations = ""
	if allocs, _, err := c.allocations(t.Context()); allocs == allocs || err != nil { //nolint:gocritic,staticcheck // not a number
		t.Errorf("%v allocations, error %v; want no number", allocs, err)
	}
}
