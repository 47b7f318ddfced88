// Package measure compares servers: short runs that take turns, and ratios within each round.
package measure

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/load"
	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

// Sample is what one run measured. Times are in microseconds, CPU and Redis are per answer.
type Sample struct {
	Rate          float64 // answers per second
	P50, P90, P99 float64
	ServerCPU     float64 // of the servers and what is behind them
	BehindCPU     float64 // the part of that which is behind them
	RedisCPU      float64
	ClientCPU     float64
	RedisCalls    float64 // commands sent to Redis
	RedisTime     float64 // in these commands, as Redis counts it
	CallsPerSec   float64
	Allocs        float64
	GCPerSec      float64
	Share         [4]float64 // of the answers, by load.Verdict
	Foreign       float64    // cores that other processes used
	Stolen        float64    // cores that the hypervisor took
}

// snapshot is all that is counted, at one moment.
type snapshot struct {
	at                                   time.Time
	idle, stolen                         time.Duration
	client, ours, servers, behind, redis time.Duration
	calls, micros, reads                 float64
	allocs, collections                  float64
}

// take reads the counters. What costs allocations is read on the outer side of the measured time.
func (c *Contender) take(ctx context.Context, g *process.Group, begin bool) (s snapshot, err error) {
	if begin {
		if s.allocs, s.collections, err = c.allocations(ctx); err != nil {
			return s, err
		}
	}
	if r := c.redis(); r != nil {
		if s.calls, s.micros, err = scriptTime(ctx, r); err != nil {
			return s, err
		}
		if s.reads, err = r.Reads(ctx); err != nil {
			return s, err
		}
		s.redis = r.CPU()
	}
	for _, v := range c.Servers {
		s.servers += v.CPU()
	}
	for _, p := range c.Behind {
		s.behind += p.CPU()
	}
	s.servers += s.behind
	s.client, s.ours = process.OwnCPU(), g.CPU()
	s.idle, s.stolen = process.Idle()
	s.at = time.Now()
	if !begin {
		s.allocs, s.collections, err = c.allocations(ctx)
	}
	return s, err
}

func (c *Contender) redis() *servers.Redis { return c.Servers[0].Redis }

// scripts are the commands by which a limiter asks Redis. The gate's samples of the queue are among them, two EVALs a
// second.
var scripts = []string{"evalsha", "evalsha_ro", "eval", "eval_ro", "fcall", "fcall_ro"}

// plain are the commands of a limiter without scripts. Redis counts them too when a script makes them.
var plain = []string{"incrby", "incr", "expire", "get"}

func scriptTime(ctx context.Context, r *servers.Redis) (calls, micros float64, err error) {
	commands, err := r.Commands(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, list := range [][]string{scripts, plain} {
		for _, name := range list {
			calls += commands[name].Calls
			micros += commands[name].Micros
		}
		if calls > 0 {
			break
		}
	}
	return calls, micros, nil
}

// Idle is how many scripts a second a server calls in a time without requests.
func Idle(ctx context.Context, r *servers.Redis, span time.Duration) (float64, error) {
	before, _, err := scriptTime(ctx, r)
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(span):
	}
	after, _, err := scriptTime(ctx, r)
	return (after - before) / span.Seconds(), err
}

var (
	allocsLine      = regexp.MustCompile(`(?m)^(?:go_memstats_mallocs_total|# Mallocs =) (\S+)`)
	collectionsLine = regexp.MustCompile(`(?m)^(?:go_gc_duration_seconds_count|# NumGC =) (\S+)`)
)

// allocations are how often the server has allocated and collected; not a number if nothing says so.
func (c *Contender) allocations(ctx context.Context) (allocs, collections float64, err error) {
	if len(c.Servers) != 1 || c.Servers[0].Allocations == "" {
		return math.NaN(), math.NaN(), nil
	}
	text, err := Get(ctx, c.Servers[0].Allocations)
	if err != nil {
		return 0, 0, err
	}
	if allocs, err = number(text, allocsLine); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", c.Servers[0].Allocations, err)
	}
	if collections, err = number(text, collectionsLine); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", c.Servers[0].Allocations, err)
	}
	return allocs, collections, nil
}

// Get is the body at a URL.
func Get(ctx context.Context, url string) (string, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", url, err)
	}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", url, err)
	}
	return string(text), nil
}

// number is what re finds in text.
func number(text string, re *regexp.Regexp) (float64, error) {
	m := re.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("there is no %q", re)
	}
	return strconv.ParseFloat(m[1], 64)
}

func between(a, b snapshot, result load.Result) Sample {
	n := float64(max(1, result.Answers()))
	wall := b.at.Sub(a.at)
	perAnswer := func(d time.Duration) float64 { return micros(d) / n }
	busy := time.Duration(runtime.NumCPU())*wall - (b.idle - a.idle)
	s := Sample{
		Rate: result.Rate(), P50: micros(result.Quantile(.5)), P90: micros(result.Quantile(.9)), P99: micros(result.Quantile(.99)),
		ServerCPU: perAnswer(b.servers - a.servers), BehindCPU: perAnswer(b.behind - a.behind),
		RedisCPU: perAnswer(b.redis - a.redis), ClientCPU: perAnswer(b.client - a.client),
		RedisCalls: (b.calls - a.calls) / n, RedisTime: (b.micros - a.micros) / n,
		CallsPerSec: (b.calls - a.calls) / wall.Seconds(),
		Allocs:      (b.allocs - a.allocs) / n, GCPerSec: (b.collections - a.collections) / wall.Seconds(),
		Foreign: (busy - (b.ours - a.ours) - (b.client - a.client)).Seconds() / wall.Seconds(),
		Stolen:  (b.stolen - a.stolen).Seconds() / wall.Seconds(),
	}
	for v := range s.Share {
		s.Share[v] = result.Share(load.Verdict(v))
	}
	return s
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
