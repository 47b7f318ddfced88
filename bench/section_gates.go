package main

import (
	"fmt"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

// growGates has more and more gates share one Redis and the load.
func growGates(b *bench, g *process.Group) error {
	const most = 4
	r, err := servers.StartRedis(g, "redis")
	if err != nil {
		return err
	}
	var gates []*servers.Server
	var contenders []measure.Contender
	for n := 1; n <= most; n++ {
		s, err := b.newest().Start(g, fmt.Sprintf("gate-%d", n), r)
		if err != nil {
			return err
		}
		gates = append(gates, s)
		contenders = append(contenders, measure.Contender{Name: fmt.Sprintf("%d gates", n), Servers: gates[:n:n],
			Traffic: load.Check("assistant", work.ManyCallers), Conns: 2 * most, Warm: brief})
	}
	contenders[0].Name = "1 gate"
	b.report.Section("Gates on one Redis", "Allowed callers, 50 in flight over all gates. All of them share the cores of this machine with each other, Redis and the client, "+
		"so this shows what more gates cost, not what they bring on machines of their own.")
	t, err := b.growth().Compare(b.ctx, g, "gates", 50, contenders)
	if err != nil {
		return err
	}
	b.report.Table(t)
	c := report.Chart{Title: "CPU per Check, µs", X: "gates", Series: []report.Series{{Name: "gates"}, {Name: "Redis"}}}
	for i := range contenders {
		c.Steps = append(c.Steps, fmt.Sprint(i+1))
		c.Series[0].Values = append(c.Series[0].Values, t.Values(i, measure.ServerCPU).Median)
		c.Series[1].Values = append(c.Series[1].Values, t.Values(i, measure.RedisCPU).Median)
	}
	return b.report.Chart("gates.svg", c)
}
