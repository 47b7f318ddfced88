package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/measure"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

const (
	hammering        = 50 // requests in flight of the callers who are refused
	hammeringCallers = 20
	served           = 2 // requests in flight of the callers who are let in
)

// way is a way to limit an API.
type way struct {
	name      string
	face, api *servers.Server
	others    []*process.Process // what stands before the API
}

// wayRun is what one run of a way measured.
type wayRun struct {
	refused, served                  float64 // a second
	refusedP50, refusedP99           float64 // ms
	servedP50, servedP99             float64 // ms
	apiCores, otherCores, redisCores float64
}

// besideFastAPI compares a FastAPI app with a limiter inside with the same app behind Envoy and the gate. A few callers
// hammer it, and others, each of whom comes seldom, want to be served.
func besideFastAPI(b *bench, g *process.Group) error {
	ways, err := b.ways(g)
	if err != nil {
		return err
	}
	b.report.Section("FastAPI", fmt.Sprintf("HTTP/1.1. %d requests are in flight from %d callers who have used up their 30 requests a minute, and %d from 100,000 callers who are let in. "+
		"uvicorn with uvloop and one worker. fastapi-limiter counts by address, the gate by address and by user.", hammering, hammeringCallers, served))
	runs := make([][]wayRun, len(ways))
	rounds := max(1, b.plan.Rounds/2)
	for round := range rounds {
		for j := range ways {
			i := j
			if round%2 == 1 {
				i = len(ways) - 1 - j
			}
			b.say("python, round %d of %d: %s", round+1, rounds, ways[i].name)
			r, err := b.hammer(ways[i])
			if err != nil {
				return fmt.Errorf("%s: %w", ways[i].name, err)
			}
			runs[i] = append(runs[i], r)
		}
	}
	var rows [][]string
	for i, w := range ways {
		med := func(f func(wayRun) float64) float64 {
			var v []float64
			for _, r := range runs[i] {
				v = append(v, f(r))
			}
			return measure.SpreadOf(v).Median
		}
		rows = append(rows, []string{w.name,
			fmt.Sprintf("%.0f", med(func(r wayRun) float64 { return r.refused })),
			fmt.Sprintf("%.1f / %.1f", med(func(r wayRun) float64 { return r.refusedP50 }), med(func(r wayRun) float64 { return r.refusedP99 })),
			fmt.Sprintf("%.0f", med(func(r wayRun) float64 { return r.served })),
			fmt.Sprintf("%.1f / %.1f", med(func(r wayRun) float64 { return r.servedP50 }), med(func(r wayRun) float64 { return r.servedP99 })),
			fmt.Sprintf("%.2f", med(func(r wayRun) float64 { return r.apiCores })),
			fmt.Sprintf("%.2f", med(func(r wayRun) float64 { return r.otherCores })),
			fmt.Sprintf("%.2f", med(func(r wayRun) float64 { return r.redisCores })),
		})
	}
	b.report.Rows([]string{"", "refused/s", "p50 / p99 ms", "let in/s", "p50 / p99 ms", "API cores", "Envoy and gate cores", "Redis cores"}, rows)
	return nil
}

func (b *bench) ways(g *process.Group) ([]way, error) {
	sources := filepath.Join(b.root, "bench")
	r, err := servers.StartRedis(g, "limiter-redis")
	if err != nil {
		return nil, err
	}
	limited, err := servers.StartAPI(g, "api-limited", b.python, sources, r)
	if err != nil {
		return nil, err
	}
	api, err := servers.StartAPI(g, "api", b.python, sources, nil)
	if err != nil {
		return nil, err
	}
	own, err := servers.StartRedis(g, "redis")
	if err != nil {
		return nil, err
	}
	gate, err := b.newest().Start(g, "gate", own)
	if err != nil {
		return nil, err
	}
	face, err := b.shippedEnvoy(api.Addr).Start(g, "envoy", gate)
	if err != nil {
		return nil, err
	}
	return []way{
		{"FastAPI with fastapi-limiter", limited, limited, nil},
		{"FastAPI behind Envoy and the gate", face, api, []*process.Process{face.Process, gate.Process}},
	}, nil
}

// hammer is one run of a way.
func (b *bench) hammer(w way) (wayRun, error) {
	l := load.Load{Addrs: []string{w.face.Addr}, Warm: time.Second, Measure: 2 * b.plan.Measure}
	bad, good := l, l
	bad.Conns, bad.InFlight, bad.Traffic = hammering, hammering, load.Web1("/assistant", hammeringCallers).Of(work.ManyCallers, hammeringCallers)
	good.Conns, good.InFlight, good.Traffic = served, served, load.Web1("/assistant", work.ManyCallers)
	type usage struct{ api, others, redis time.Duration }
	used := func() (u usage) {
		u.api, u.redis = w.api.CPU(), w.face.Redis.CPU()
		for _, p := range w.others {
			u.others += p.CPU()
		}
		return u
	}
	var from, to usage
	good.Begin = func() { from = used() }
	good.End = func() { to = used() }
	type outcome struct {
		result load.Result
		err    error
	}
	hammered := make(chan outcome, 1)
	go func() {
		result, err := bad.Run(b.ctx)
		hammered <- outcome{result, err}
	}()
	let, err := good.Run(b.ctx)
	refused := <-hammered
	if err := errors.Join(err, refused.err); err != nil {
		return wayRun{}, err
	}
	if let.Share(load.Allowed) < 0.99 || refused.result.Share(load.Limited) < 0.9 {
		return wayRun{}, fmt.Errorf("wrong answers: allowed, limited, shed, failed are %v and, of those who hammer, %v", let.Counts, refused.result.Counts)
	}
	cores := func(d time.Duration) float64 { return d.Seconds() / let.Took.Seconds() }
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	return wayRun{
		refused: refused.result.Rate(), served: let.Rate(),
		refusedP50: ms(refused.result.Quantile(.5)), refusedP99: ms(refused.result.Quantile(.99)),
		servedP50: ms(let.Quantile(.5)), servedP99: ms(let.Quantile(.99)),
		apiCores: cores(to.api - from.api), otherCores: cores(to.others - from.others), redisCores: cores(to.redis - from.redis),
	}, nil
}
