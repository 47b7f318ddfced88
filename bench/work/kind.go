// Package work has the kinds of work that a gate does, and starts a gate in the state that each of them needs.
package work

import (
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// Kind is a kind of work of the gate.
type Kind int

// The kinds. RunAssistant is what Run is compared with: requests to /assistant, which need no place in the queue, on the
// same gate and with the same limits.
const (
	Allowed Kind = iota
	Refused
	ShedRun
	ShedAssistant
	Run
	RunAssistant
)

func (k Kind) String() string {
	return [...]string{"allowed", "refused", "shed, /run", "shed, /assistant", "/run", "/assistant, set as /run"}[k]
}

// Name is what a gate at a kind of work is called in tables.
func Name(gate servers.Gate, k Kind) string { return gate.Name + ", " + k.String() }

const (
	// ManyCallers is how many callers have tokens left, whatever is measured.
	ManyCallers = 100_000
	// FewCallers is how many callers are refused.
	FewCallers = 50
	// BucketLife is a little longer than a bucket lives after one token was taken. After that time as many keys
	// expire as come, so Redis does all the work that it will have to do.
	BucketLife = 2200 * time.Millisecond
	// Warm is the warm-up where nothing needs a longer one.
	Warm = 300 * time.Millisecond
)

// on is a server at a kind of work.
func (k Kind) on(v *servers.Server) measure.Contender {
	c := measure.Contender{Servers: []*servers.Server{v}, Warm: Warm}
	switch k {
	case Allowed, RunAssistant:
		c.Traffic, c.Warm, c.NeedsRedis = load.Check("assistant", ManyCallers), BucketLife, true
	case Refused:
		c.Traffic, c.Want = load.Check("assistant", FewCallers).Of(ManyCallers, FewCallers), load.Limited
	case ShedRun:
		c.Traffic, c.Want = load.Check("run", ManyCallers), load.Shed
	case ShedAssistant:
		c.Traffic, c.Want = load.Check("assistant", ManyCallers), load.Shed
	case Run:
		c.Traffic, c.Warm, c.NeedsRedis = load.Check("run", ManyCallers), BucketLife, true
	}
	return c
}

// Noop is a server that says OK at once, beside which the kinds are measured.
func Noop(name string, v *servers.Server) measure.Contender {
	return measure.Contender{Name: name, Servers: []*servers.Server{v}, Traffic: load.Check("assistant", ManyCallers), Warm: Warm}
}
