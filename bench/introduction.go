package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// condition is when something was measured, and how busy the machine was.
type condition struct {
	at   time.Time
	load string
}

func conditions() condition { return condition{time.Now(), process.LoadAverage()} }

const method = `
Servers, Redis and the client run on this one machine, over TCP on the loopback. The client is a closed loop: each answer is
followed at once by the next request, on two connections as an Envoy with two workers has. A request of the client has 1.1 kB and 15
headers, as Envoy sends them with ` + "`encode_raw_headers`" + `. All answers are read and checked.

The servers of a table are up at the same time, each with a Redis of its own. Runs of %v take turns, and every second round turns their
order. A number is the median of the rounds, and a ratio the median of the ratios within the rounds, with the least and the
greatest. Where buckets live for 2 s, a warm-up of 2.2 s comes before, so that as many expire as come. CPU is that of all threads
of a process by the kernel's accounts; Redis's µs and calls are its own, and ` + "`return 0`" + ` is the shortest script, under the same load.
A run in which other processes used more than %.2f cores is repeated, once or twice and a third of all runs at most, and the quietest one counts.
A run with wrong answers is repeated too; if that happens more than once, and once more in 20 runs, the benchmark fails.
`

// introduction says where and how it was measured.
func (b *bench) introduction(before condition) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# What the gate costs\n\n`make bench` has written this. [performance.md](../performance.md) says what follows from it.\n\n")
	after := conditions()
	for _, row := range [][2]string{
		{"measured", fmt.Sprintf("%s, in %v", before.at.UTC().Format("2006-01-02 15:04 MST"), after.at.Sub(before.at).Round(time.Second))},
		{"machine", fmt.Sprintf("%d CPUs, %s, Linux %s", runtime.NumCPU(), cpuModel(), kernel())},
		{"load average", fmt.Sprintf("%s before, %s after", before.load, after.load)},
		{"disturbances", b.report.Disturbed()},
		{"versions", strings.Join(b.versions(), ", ")},
		{"rounds", fmt.Sprintf("%d, where something grows %d", b.plan.Rounds, b.growth().Rounds)},
	} {
		fmt.Fprintf(&s, "- %s: %s\n", row[0], row[1])
	}
	fmt.Fprintf(&s, method, b.plan.Measure, b.plan.Foreign)
	return s.String()
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // "unknown" if it can't be read
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return "unknown processor"
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty if it can't be read
	return strings.TrimSpace(string(text))
}

// versions are those of all that was measured.
func (b *bench) versions() []string {
	all := []string{"gate " + b.said("git", "-C", b.root, "describe", "--always", "--dirty"), runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "google.golang.org/grpc", "github.com/redis/go-redis/v9", "github.com/go-redis/redis_rate/v10":
				all = append(all, m.Path+" "+m.Version)
			}
		}
	}
	all = append(all, "redis-server "+pick(b.said("redis-server", "--version"), `v=(\S+)`), "Envoy "+pick(b.said(b.envoy, "--version"), `/(\d+\.\d+\.\d+)/`))
	list := b.said(b.python, "-m", "pip", "list", "--format=freeze")
	for _, name := range []string{"fastapi", "fastapi-limiter", "uvicorn", "uvloop"} {
		if v := pick(list, `(?m)^`+name+`==(\S+)$`); v != "" {
			all = append(all, name+" "+v)
		}
	}
	return all
}

// said is what a program writes; "unknown" if it fails.
func (b *bench) said(program string, args ...string) string {
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func pick(text, pattern string) string {
	if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}
