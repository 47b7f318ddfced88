package work

import (
	"fmt"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// state is the state of a gate in which it does a kind of work.
type state int

const (
	plain state = iota // its defaults
	full               // a full queue
	open               // a queue that never fills, and the same limits for /run as for /assistant
)

func (k Kind) state() state {
	switch k {
	case ShedRun, ShedAssistant:
		return full
	case Run, RunAssistant:
		return open
	default:
		return plain
	}
}

// Stack is one gate in the states that its kinds of work need, each with a Redis of its own.
type Stack struct {
	group   *process.Group
	gate    servers.Gate
	name    string
	running map[state]*servers.Server
	// background is how many scripts a second the gate with the full queue calls by itself: its job counter looks at
	// the jobs that come and leave.
	background float64
}

// NewStack returns a stack in which nothing runs yet. The name is that of its programs.
func NewStack(g *process.Group, gate servers.Gate, name string) *Stack {
	return &Stack{group: g, gate: gate, name: name, running: make(map[state]*servers.Server)}
}

// Contender is the gate at a kind of work, started if it does not run yet.
func (s *Stack) Contender(k Kind) (measure.Contender, error) {
	v, err := s.in(k.state())
	if err != nil {
		return measure.Contender{}, fmt.Errorf("start %s: %w", s.gate.Name, err)
	}
	c := k.on(v)
	c.Name = Name(s.gate, k)
	if k.state() == full {
		c.Background = s.background
	}
	return c, nil
}

func (s *Stack) in(state state) (*servers.Server, error) {
	if v := s.running[state]; v != nil {
		return v, nil
	}
	name := fmt.Sprintf("%s-%d", s.name, state)
	r, err := servers.StartRedis(s.group, name+"-redis")
	if err != nil {
		return nil, err
	}
	var env []string
	switch state {
	case open:
		env = []string{"QUEUE_MAX_PENDING=1000000000", "RATE_LIMIT_RUN_BURST=30", "RATE_LIMIT_RUN_PER_MINUTE=30"}
	case full:
		if err := r.FillQueue(s.group.Context(), 0, 60, 1000); err != nil {
			return nil, err
		}
		go r.TurnQueue(s.group.Context(), 5)
	}
	v, err := s.gate.Start(s.group, name, r, env...)
	if err != nil {
		return nil, err
	}
	if state == full {
		if s.background, err = measure.Idle(s.group.Context(), r, 5*time.Second); err != nil {
			return nil, err
		}
	}
	s.running[state] = v
	return v, nil
}
