package main

import (
	"fmt"

	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

// growInFlight puts more and more requests in flight.
func growInFlight(b *bench, g *process.Group) error {
	contenders, err := b.workContenders(g, []work.Kind{work.Allowed})
	if err != nil {
		return err
	}
	contenders = contenders[:len(contenders)-1] // without Redis alone
	for i := range contenders {
		contenders[i].Warm = min(contenders[i].Warm, brief)
	}
	b.report.Section("Requests in flight", "Allowed callers, as above.")
	rates := report.Chart{Title: "requests per second", X: "requests in flight"}
	p99s := report.Chart{Title: "p99, ms", X: "requests in flight"}
	for _, c := range contenders {
		rates.Series = append(rates.Series, report.Series{Name: c.Name})
		p99s.Series = append(p99s.Series, report.Series{Name: c.Name})
	}
	var rows [][]string
	for _, n := range []int{1, 2, 5, 10, 20, 50, 100, 200} {
		t, err := b.growth().Compare(b.ctx, g, "in flight", n, contenders)
		if err != nil {
			return err
		}
		b.report.Compared(t)
		for i, c := range contenders {
			rate, p99 := t.Values(i, measure.Rate).Median, t.Values(i, measure.P99).Median
			rates.Series[i].Values = append(rates.Series[i].Values, rate)
			p99s.Series[i].Values = append(p99s.Series[i].Values, p99/1e3)
			ratio := ""
			if i > 0 {
				ratio = t.Ratio(i, 0, measure.Rate).String()
			}
			rows = append(rows, []string{fmt.Sprint(n), c.Name, fmt.Sprintf("%.0f", rate), ratio, fmt.Sprintf("%.0f", t.Values(i, measure.P50).Median),
				fmt.Sprintf("%.0f", p99), fmt.Sprintf("%.1f", t.Values(i, measure.ServerCPU).Median), fmt.Sprintf("%.1f", t.Values(i, measure.RedisCPU).Median),
				fmt.Sprintf("%.3f", t.Values(i, measure.RedisCalls).Median)})
		}
		rates.Steps = append(rates.Steps, fmt.Sprint(n))
	}
	p99s.Steps = rates.Steps
	b.report.Rows([]string{"in flight", "", "requests/s", "× no-op", "p50 µs", "p99 µs", "CPU µs", "Redis CPU µs", "Redis calls"}, rows)
	if err := b.report.Chart("inflight.svg", rates); err != nil {
		return err
	}
	return b.report.Chart("inflight-p99.svg", p99s)
}
