package work

import (
	"testing"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// TestKinds: a real gate gives at each kind of work the answers that it is measured for, by the Redis calls that it
// needs at least.
func TestKinds(t *testing.T) {
	g, err := process.NewGroup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	binary, err := servers.Build(g, "../..", g.Dir)
	if err != nil {
		t.Fatal(err)
	}
	// A machine that stalls must not make the gate answer without Redis.
	stack := NewStack(g, servers.Gate{Name: "gate", Binary: binary, Env: []string{"REDIS_TIMEOUT=10s"}}, "gate")
	for _, k := range []Kind{Allowed, Refused, ShedRun, ShedAssistant, Run, RunAssistant} {
		c, err := stack.Contender(k)
		if err != nil {
			t.Fatal(err)
		}
		c.Traffic = c.Traffic.Patient()
		if _, err := c.Load(50, 3000).Run(t.Context()); err != nil { // uses up the tokens of those who are to be refused
			t.Fatal(err)
		}
		s, err := c.Exactly(t.Context(), g, 50, 2000)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if s.Rate <= 0 || s.P99 < s.P50 || s.P50 <= 0 || s.ServerCPU <= 0 || s.Allocs < 10 {
			t.Errorf("%s: something was not measured: %+v", c.Name, s)
		}
		if asks := k == Allowed || k == Run || k == RunAssistant; asks && (s.RedisCalls <= 0 || s.RedisTime <= 0) {
			t.Errorf("%s: calls of Redis were not seen: %+v", c.Name, s)
		}
	}
}
