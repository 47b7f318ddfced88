package servers_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// TestMain lets this program be the servers that it starts, as the benchmark does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := servers.Serve(context.Background(), os.Stdout, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func group(t *testing.T) *process.Group {
	t.Helper()
	g, err := process.NewGroup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func ask(t *testing.T, s *servers.Server, err error, traffic *load.Traffic, count int64) load.Result {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, err := load.Load{Addrs: []string{s.Addr}, Conns: 2, InFlight: 10, Traffic: traffic, Count: count}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNoopsAllow: all no-ops let every request pass.
func TestNoopsAllow(t *testing.T) {
	t.Parallel()
	g := group(t)
	for _, kind := range []servers.Noop{servers.Standard, servers.Raw, servers.RawSet} {
		s, err := servers.StartNoop(g, "noop-"+string(kind), kind, servers.OK())
		if r := ask(t, s, err, load.Check("assistant", 10), 500); r.Counts[load.Allowed] != 500 {
			t.Errorf("%s: allowed, limited, shed, failed are %v", kind, r.Counts)
		}
	}
}

// TestRedisRateLimits: a caller has 30 requests, and then no more than it gains.
func TestRedisRateLimits(t *testing.T) {
	t.Parallel()
	s, err := servers.StartRedisRate(group(t), "redis-rate")
	traffic := load.Check("assistant", 2).Patient()
	traffic.InTurn = true
	r := ask(t, s, err, traffic, 500)
	if n := r.Counts[load.Allowed]; n < 60 || n > 80 || r.Counts[load.Limited] != 500-n {
		t.Errorf("allowed, limited, shed, failed are %v; want about 60 allowed and all others limited", r.Counts)
	}
}

// TestProcessesEnd: closing a group ends its programs and removes their folder, and a program that ends by itself is an
// error for those who wait for it.
func TestProcessesEnd(t *testing.T) {
	t.Parallel()
	g, err := process.NewGroup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Memory(); err != nil {
		t.Fatal(err)
	}
	if _, err := (servers.Gate{Binary: "false"}).Start(g, "gate", nil); err == nil {
		t.Error("a gate that ends at once was started")
	}
	g.Close()
	if err := r.Ping(t.Context()).Err(); err == nil {
		t.Error("Redis answers after the end")
	}
	if _, err := os.Stat(g.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}
