package main

import (
	"fmt"
	"slices"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

const aboutWork = "The no-op is a gRPC service that reads no request and answers at once. It has the defaults of grpc-go and of Go, and the goals are relative to it. " +
	"The gate has settings of its own: 64 goroutines of grpc-go wait for requests (stream workers), and the heap grows by 24 MB until garbage is collected. " +
	"The second no-op has these settings too, so it bounds what the gate can reach. The first one is no such bound. " +
	"Allowed: 100,000 callers at random, whose buckets have tokens. Refused: 50 callers, whose buckets are empty but for a token each 2 s. " +
	"Shed: 60 jobs wait (`QUEUE_MAX_PENDING=40`), of which 5 leave and come each second. " +
	"`/run` takes tokens and a place in the queue, and `/assistant` only tokens; both have the same limits here. " +
	"Times and CPU are per answer."

// compareWork compares each gate at kinds of work with the no-op.
func compareWork(kinds ...work.Kind) func(*bench, *process.Group) error {
	return func(b *bench, g *process.Group) error {
		contenders, err := b.workContenders(g, kinds)
		if err != nil {
			return err
		}
		set, err := servers.StartNoop(g, "noop-set", servers.RawSet, servers.OK())
		if err != nil {
			return err
		}
		contenders = slices.Insert(contenders, 1, work.Noop("no-op, raw codec, with the gate's settings", set))
		b.report.Section("What the gate does", aboutWork)
		for _, n := range b.inFlight {
			t, err := b.compare(g, "work", n, contenders)
			if err != nil {
				return err
			}
			b.noteWork(t)
		}
		return nil
	}
}

// workContenders starts the no-op, each gate at each kind of work, others' limiters, and Redis alone.
func (b *bench) workContenders(g *process.Group, kinds []work.Kind) ([]measure.Contender, error) {
	noop, err := servers.StartNoop(g, "noop", servers.Raw, servers.OK())
	if err != nil {
		return nil, err
	}
	list := []measure.Contender{work.Noop("no-op, raw codec", noop)}
	stacks := make([]*work.Stack, len(b.gates))
	for i, gate := range b.gates {
		stacks[i] = work.NewStack(g, gate, fmt.Sprintf("gate-%d", i))
	}
	for _, k := range kinds {
		for i, stack := range stacks {
			c, err := stack.Contender(k)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				c.Of = work.Name(b.gates[0], k)
			}
			list = append(list, c)
		}
		others, err := b.others(g, k)
		if err != nil {
			return nil, err
		}
		list = append(list, others...)
	}
	ruler, err := startRuler(g)
	return append(list, ruler), err
}

func startRuler(g *process.Group) (measure.Contender, error) {
	r, err := servers.StartRedis(g, "redis-alone")
	if err != nil {
		return measure.Contender{}, err
	}
	return measure.Ruler(g.Context(), r)
}

// others are others' limiters at a kind of work. They are left out where gates are compared with each other.
func (b *bench) others(g *process.Group, k work.Kind) (list []measure.Contender, err error) {
	if len(b.gates) > 1 {
		return nil, nil
	}
	if k == work.Allowed {
		s, err := servers.StartRedisRate(g, "redis-rate")
		if err != nil {
			return nil, err
		}
		list = append(list, measure.Contender{Name: "redis_rate, allowed", Servers: []*servers.Server{s},
			Traffic: load.Check("assistant", work.ManyCallers), Warm: work.BucketLife})
	}
	if b.peer == "" {
		return list, nil
	}
	peer := measure.Contender{Name: "envoyproxy/ratelimit, " + k.String()}
	var env []string
	switch k {
	case work.Allowed:
		peer.Traffic, peer.Warm = load.RateLimit("minute", work.ManyCallers), work.BucketLife
	case work.Refused:
		peer.Traffic, peer.Warm, peer.Want = load.RateLimit("day", work.FewCallers), work.Warm, load.Limited
		env = []string{"LOCAL_CACHE_SIZE_IN_BYTES=104857600"}
	default:
		return list, nil
	}
	s, err := servers.StartPeer(g, b.peer, fmt.Sprintf("peer-%d", k), env...)
	if err != nil {
		return nil, err
	}
	peer.Servers = []*servers.Server{s}
	return append(list, peer), nil
}

// noteWork says how the newest gate did. The no-op is the first contender and Redis alone the last.
func (b *bench) noteWork(t *measure.Table) {
	label := fmt.Sprintf("%d in flight", t.InFlight)
	noop, ruler := 0, len(t.Contenders)-1
	at := func(k work.Kind) int { return t.Index(work.Name(b.newest(), k)) }
	if i := at(work.Allowed); i >= 0 {
		b.report.Note(report.AllowedRate, label, t.Ratio(i, noop, measure.Rate))
		b.report.Note(report.AllowedP99, label, t.Ratio(i, noop, measure.P99))
		b.report.Note(report.Allocations, label, t.Values(i, measure.Allocs))
		b.report.Note(report.RedisTime, label, t.Ratio(i, ruler, measure.RedisTime))
		b.report.Note(report.RedisCalls, label, t.Values(i, measure.RedisCalls))
	}
	if i := at(work.Refused); i >= 0 {
		b.report.Note(report.RefusedRate, label, t.Ratio(i, noop, measure.Rate))
		b.report.Note(report.RefusedCalls, label, t.Values(i, measure.RedisCalls))
	}
	if i := at(work.ShedRun); i >= 0 {
		b.report.Note(report.ShedRate, label+", `/run`", t.Ratio(i, noop, measure.Rate))
		b.report.Note(report.ShedCalls, label, t.Values(i, func(s measure.Sample) float64 { return s.CallsPerSec }))
	}
	if i := at(work.ShedAssistant); i >= 0 {
		b.report.Note(report.ShedRate, label+", `/assistant`", t.Ratio(i, noop, measure.Rate))
	}
	if i := at(work.Run); i >= 0 {
		b.report.Note(report.RunRate, label, t.Ratio(i, at(work.RunAssistant), measure.Rate))
	}
}
