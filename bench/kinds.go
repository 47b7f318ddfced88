package main

import (
	"fmt"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// kind is a kind of work of the gate.
type kind int

const (
	allowed kind = iota
	refused
	shedRun
	shedAssistant
	runAdmitted
	runAssistant
)

func (k kind) String() string {
	return [...]string{"allowed", "refused", "shed, /run", "shed, /assistant", "/run", "/assistant, set as /run"}[k]
}

// condition is the state of a gate in which it does a kind of work.
type condition int

const (
	plain condition = iota // its defaults
	full                   // a full queue
	open                   // a queue that never fills, and the same limits for /run as for /assistant
)

const (
	manyCallers = 100_000
	fewCallers  = 50
	// bucketLife is a little longer than a bucket lives after one token was taken. After that time as many keys
	// expire as come, so Redis does all the work that it will have to do.
	bucketLife = 2200 * time.Millisecond
	warm       = 300 * time.Millisecond
)

func (k kind) condition() condition {
	switch k {
	case shedRun, shedAssistant:
		return full
	case runAdmitted, runAssistant:
		return open
	default:
		return plain
	}
}

// gateStack is one gate in the conditions that its kinds of work need, each with a Redis of its own.
type gateStack struct {
	g       *process.Group
	gate    servers.Gate
	name    string
	running map[condition]*servers.Server
}

func (s *gateStack) contender(k kind) (measure.Contender, error) {
	v, err := s.in(k.condition())
	if err != nil {
		return measure.Contender{}, err
	}
	c := measure.Contender{Name: contenderName(s.gate, k), Servers: []*servers.Server{v}, Warm: warm}
	switch k {
	case allowed, runAssistant:
		c.Traffic, c.Warm = load.Check("assistant", manyCallers), bucketLife
	case refused:
		c.Traffic, c.Want = load.Check("assistant", fewCallers).Of(manyCallers, fewCallers), load.Limited
	case shedRun:
		c.Traffic, c.Want = load.Check("run", manyCallers), load.Shed
	case shedAssistant:
		c.Traffic, c.Want = load.Check("assistant", manyCallers), load.Shed
	case runAdmitted:
		c.Traffic, c.Warm = load.Check("run", manyCallers), bucketLife
	}
	return c, nil
}

func (s *gateStack) in(c condition) (*servers.Server, error) {
	if v := s.running[c]; v != nil {
		return v, nil
	}
	name := fmt.Sprintf("%s-%d", s.name, c)
	r, err := servers.StartRedis(s.g, name+"-redis")
	if err != nil {
		return nil, err
	}
	var env []string
	switch c {
	case open:
		env = []string{"QUEUE_MAX_PENDING=1000000000", "RATE_LIMIT_RUN_BURST=30", "RATE_LIMIT_RUN_PER_MINUTE=30"}
	case full:
		if err := r.FillQueue(s.g.Context(), 60, 1000); err != nil {
			return nil, err
		}
		go r.TurnQueue(s.g.Context(), 5)
	}
	v, err := s.gate.Start(s.g, name, r, env...)
	s.running[c] = v
	return v, err
}

func noopContender(v *servers.Server) measure.Contender {
	return measure.Contender{Name: "no-op, raw codec", Servers: []*servers.Server{v}, Traffic: load.Check("assistant", manyCallers), Warm: warm}
}
