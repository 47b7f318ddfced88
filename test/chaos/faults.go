package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// Scene is a world and the faults that are played in it, one after the other.
type Scene struct {
	Name   string
	Setup  Setup
	Faults []Fault
}

// Scenes are all faults.
func Scenes() []Scene {
	return []Scene{
		{Name: "one gate", Faults: slices.Concat(redisFaults(), []Fault{
			{
				Name: "gate-killed", What: "the only gate is killed, and started again", Lost: true,
				Hurt: func(tb testing.TB, w *World) { w.Gates[0].Kill(tb) },
				Heal: func(tb testing.TB, w *World) { w.ReplaceGate(tb, 0) },
			},
			{
				Name: "envoy-restarted", What: "Envoy is ended by SIGTERM, and another started", Lost: true,
				Hurt: func(tb testing.TB, w *World) { w.Envoy().Stop(tb) },
				Heal: func(tb testing.TB, w *World) { w.StartEnvoy(tb) },
			},
			{
				Name: "log-closed", What: "nobody reads the gate's log any more (closed pipe), and Redis is killed", Away: true, Buckets: 3,
				Prepare: func(tb testing.TB, w *World) { w.muteGate(tb, "> >(exit)") },
				Hurt:    func(_ testing.TB, w *World) { w.Redis.Kill() },
				Heal:    func(_ testing.TB, w *World) { w.restartEmpty() },
			},
			{
				Name: "log-full", What: "the disk of the gate's log is full (/dev/full), and Redis is killed", Away: true, Buckets: 3,
				Prepare: func(tb testing.TB, w *World) { w.muteGate(tb, "> /dev/full") },
				Hurt:    func(_ testing.TB, w *World) { w.Redis.Kill() },
				Heal:    func(_ testing.TB, w *World) { w.restartEmpty() },
			},
		})},
		{Name: "two gates", Setup: Setup{Gates: 2, Settings: map[string]string{"SHUTDOWN_DRAIN": "2s"}}, Faults: []Fault{
			{
				Name: "gates-rolled", What: "two gates behind one Envoy are replaced, each by SIGTERM and a new one",
				Hurt: func(tb testing.TB, w *World) {
					for i, g := range w.Gates {
						g.Stop(tb)
						w.ReplaceGate(tb, i)
						w.awaitHealthy(tb, len(w.Gates))
					}
				},
			},
			{
				Name: "gate-of-two-killed", What: "one of two gates is killed, and started again", Lost: true,
				Hurt: func(tb testing.TB, w *World) { w.Gates[0].Kill(tb) },
				Heal: func(tb testing.TB, w *World) { w.ReplaceGate(tb, 0); w.awaitHealthy(tb, len(w.Gates)) },
			},
		}},
		{Name: "one gate that denies", Setup: Setup{Settings: map[string]string{"RATE_LIMIT_FAILURE_MODE": "deny", "QUEUE_FAILURE_MODE": "deny"}}, Faults: []Fault{{
			Name: "deny-half-open", What: "as redis-half-open, with both failure modes `deny`", Away: true, Denies: true,
			Hurt: func(tb testing.TB, w *World) { w.Spoil(tb, "timeout", `{"timeout": 0}`) },
			Heal: func(tb testing.TB, w *World) { w.Mend(tb) },
		}}},
		{Name: "Redis with another clock", Setup: Setup{Clock: true}, Faults: []Fault{
			{
				Name: "clock-back", What: "Redis's clock is set back by 10 minutes, and forward again", Buckets: 2, Emptied: true,
				Hurt: func(tb testing.TB, w *World) { w.SetClock(tb, -10*time.Minute) },
				Heal: func(tb testing.TB, w *World) { w.SetClock(tb, 0) },
			},
			{
				Name: "clock-forward", What: "Redis's clock is set forward by a day, and back again", Buckets: 2, Emptied: true, Slow: true,
				Hurt: func(tb testing.TB, w *World) { w.SetClock(tb, 24*time.Hour) },
				Heal: func(tb testing.TB, w *World) { w.SetClock(tb, 0) },
			},
		}},
		{Name: "Sentinel", Setup: Setup{Sentinel: true}, Faults: []Fault{{
			Name: "sentinel-failover", What: "Sentinel's master is killed, its replica takes over", Away: true, Buckets: 3, Itself: true, Beyond: true,
			Hurt: func(_ testing.TB, w *World) { w.Sentinel.Master.Kill() },
			Heal: func(tb testing.TB, w *World) { awaitMaster(tb, w.Sentinel.Replica) },
		}}},
		{Name: "Cluster", Setup: Setup{Cluster: true}, Faults: []Fault{
			{
				Name: "cluster-primary-lost", What: "of three primaries with the buckets one is killed, its replica takes over", Away: true, Buckets: 3, Itself: true,
				Hurt: func(_ testing.TB, w *World) { w.Cluster.Primaries[0].Kill() },
				Heal: func(tb testing.TB, w *World) { awaitMaster(tb, w.Cluster.Replicas[0]) },
			},
			{
				Name: "cluster-primary-frozen", What: "of three primaries with the buckets one is stopped (SIGSTOP), its replica takes over", Away: true, Buckets: 3, Itself: true,
				Hurt: func(tb testing.TB, w *World) { signal(tb, w.Cluster.Primaries[1], syscall.SIGSTOP) },
				Heal: func(tb testing.TB, w *World) { awaitMaster(tb, w.Cluster.Replicas[1]) },
			},
		}},
	}
}

// loadingTime is how long Redis is made to load its data.
const loadingTime = 4 * time.Second

// redisFaults are those of a single Redis.
func redisFaults() []Fault {
	mend := func(tb testing.TB, w *World) { w.Mend(tb) }
	return []Fault{
		{
			Name: "redis-killed-empty", What: "Redis is killed, and comes back without its data", Away: true, Buckets: 3,
			Hurt: func(_ testing.TB, w *World) { w.Redis.Kill() },
			Heal: func(_ testing.TB, w *World) { w.restartEmpty() },
		},
		{
			Name: "redis-killed-data", What: "Redis is killed, and comes back with its data (appendonly, fsync always)", Away: true, Buckets: 2,
			Hurt: func(tb testing.TB, w *World) {
				w.set(tb, "appendfsync", "always")
				w.set(tb, "appendonly", "yes")
				awaitInfo(tb, w.Direct, "persistence", "aof_rewrite_in_progress:0", "aof_enabled:1")
				w.Redis.Kill()
			},
			Heal: func(_ testing.TB, w *World) { w.Redis.Restart("--appendonly", "yes") },
		},
		{
			Name: "redis-frozen", What: "Redis is stopped (SIGSTOP), and goes on", Away: true, Buckets: 2, Beyond: true,
			Hurt: func(tb testing.TB, w *World) { signal(tb, w.Redis, syscall.SIGSTOP) },
			Heal: func(tb testing.TB, w *World) { signal(tb, w.Redis, syscall.SIGCONT) },
		},
		{
			Name: "redis-slow", What: "each answer of Redis comes 300 ms late", Away: true, Buckets: 2, Beyond: true,
			Hurt: func(tb testing.TB, w *World) {
				w.Spoil(tb, "latency", `{"latency": 300}`)
				w.Reconnect(tb)
			}, Heal: mend,
		},
		{
			Name: "redis-resets", What: "each connection to Redis is reset as soon as it is used", Away: true, Buckets: 2, Beyond: true,
			Hurt: func(tb testing.TB, w *World) { w.Spoil(tb, "reset_peer", `{"timeout": 0}`) }, Heal: mend,
		},
		{
			Name: "redis-half-open", What: "connections to Redis stay, and nothing comes through them any more", Away: true, Buckets: 2, Beyond: true,
			Hurt: func(tb testing.TB, w *World) { w.Spoil(tb, "timeout", `{"timeout": 0}`) }, Heal: mend,
		},
		{
			Name: "scripts-flushed", What: "Redis forgets all scripts",
			Hurt: func(tb testing.TB, w *World) { must(tb, w.Direct.ScriptFlush(tb.Context()).Err()) },
		},
		{
			Name: "redis-readonly", What: "Redis becomes a replica that refuses writes, as after a failover", Away: true, Answers: true, Buckets: 2,
			Hurt: func(tb testing.TB, w *World) { must(tb, w.Direct.ReplicaOf(tb.Context(), "127.0.0.1", "1").Err()) },
			Heal: func(tb testing.TB, w *World) { must(tb, w.Direct.ReplicaOf(tb.Context(), "NO", "ONE").Err()) },
		},
		{
			Name: "redis-loading", What: "Redis is started anew and loads its data, which takes a while", Away: true, Buckets: 2, Itself: true,
			Hurt: func(tb testing.TB, w *World) {
				w.set(tb, "appendonly", "no")
				must(tb, w.Direct.Save(tb.Context()).Err())
				keys, err := w.Direct.DBSize(tb.Context()).Result()
				must(tb, err)
				delay := loadingTime.Microseconds() / max(1, keys)
				w.Redis.Launch("--appendonly", "no", "--key-load-delay", fmt.Sprint(delay), "--loading-process-events-interval-bytes", "1024")
			},
			Heal: func(tb testing.TB, w *World) {
				ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
				defer cancel()
				must(tb, w.Redis.WaitReady(ctx))
			},
		},
		{
			Name: "redis-out-of-memory", What: "Redis has no memory left (noeviction)", Away: true, Answers: true, Buckets: 2,
			Hurt: func(tb testing.TB, w *World) { w.set(tb, "maxmemory", "1") },
			Heal: func(tb testing.TB, w *World) { w.set(tb, "maxmemory", "0") },
		},
		{
			Name: "redis-password", What: "Redis asks for a password that the gate does not have, and hangs up on all", Away: true, Buckets: 2,
			Hurt: func(tb testing.TB, w *World) {
				w.set(tb, "requirepass", "changed")
				// Connections that were let in before would stay so.
				must(tb, w.Direct.ClientKillByFilter(tb.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
				must(tb, w.Direct.ClientKillByFilter(tb.Context(), "TYPE", "pubsub").Err())
			},
			Heal: func(tb testing.TB, w *World) {
				c := redis.NewClient(&redis.Options{Network: "unix", Addr: w.Redis.Socket, Password: "changed"})
				defer func() { _ = c.Close() }()
				must(tb, c.ConfigSet(tb.Context(), "requirepass", "").Err())
			},
		},
	}
}

// restartEmpty starts Redis without data, whatever it has saved before and however slowly it was made to load that.
func (w *World) restartEmpty() {
	w.Redis.Restart("--appendonly", "no", "--key-load-delay", "0", "--dbfilename", fmt.Sprintf("empty-%d.rdb", time.Now().UnixNano()))
}

// set changes a setting of Redis.
func (w *World) set(tb testing.TB, name, value string) {
	tb.Helper()
	if err := w.Direct.ConfigSet(tb.Context(), name, value).Err(); err != nil {
		tb.Fatalf("set Redis's %s: %v", name, err)
	}
}

// muteGate replaces the gate by one that logs everything to where nobody reads.
func (w *World) muteGate(tb testing.TB, redirection string) {
	tb.Helper()
	old := w.Gates[0]
	old.Stop(tb)
	env := map[string]string{
		"LOG_LEVEL": "DEBUG", "GRPC_ADDR": old.GRPC, "TELEMETRY_ADDR": old.Telemetry, "SHUTDOWN_DRAIN": "0s",
		"GRPC_CODEC": os.Getenv("GRPC_CODEC"),
	}
	maps.Copy(env, w.settings)
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	g := &e2e.Gate{GRPC: old.GRPC, Telemetry: old.Telemetry}
	g.Process = proctest.Start(tb, proctest.Command{
		Name: "mute gate", Path: "/bin/bash", Args: []string{"-c", `exec "$0" ` + redirection + " 2>&1", e2e.GateBinary(tb)}, Env: list,
	})
	w.Gates[0] = g
	w.awaitAnswers(tb)
}

// awaitAnswers waits until requests are answered by a gate again.
func (w *World) awaitAnswers(tb testing.TB) {
	tb.Helper()
	polltest.Until(tb, time.Minute, "an answer of a gate", func() error {
		// Denied or not: this caller's bucket will be empty soon.
		r := w.Envoy().Post(tb, "/assistant", "CF-Connecting-IP: 203.0.113.1")
		if r.Header.Get("Ratelimit") == "" {
			return fmt.Errorf("%d %s", r.Status, r.Body)
		}
		return nil
	})
}

// awaitHealthy waits until Envoy takes so many gates for healthy.
func (w *World) awaitHealthy(tb testing.TB, gates int) {
	tb.Helper()
	polltest.Until(tb, time.Minute, "Envoy to find all gates healthy", func() error {
		text := w.Envoy().Stat(tb, "cluster.gate.membership_healthy")
		if text != fmt.Sprint(gates) {
			return fmt.Errorf("%s of %d", text, gates)
		}
		return nil
	})
}

func awaitMaster(tb testing.TB, s *redistest.Server) {
	tb.Helper()
	awaitInfo(tb, s.Client(tb), "replication", "role:master")
}

// awaitInfo waits until a section of INFO has all these lines.
func awaitInfo(tb testing.TB, c *redis.Client, section string, lines ...string) {
	tb.Helper()
	polltest.Until(tb, time.Minute, "Redis to say "+strings.Join(lines, " "), func() error {
		text, err := c.Info(tb.Context(), section).Result()
		if err != nil {
			return err
		}
		for _, line := range lines {
			if !strings.Contains(text, line+"\r\n") {
				return errors.New(text)
			}
		}
		return nil
	})
}

func signal(tb testing.TB, s *redistest.Server, sig syscall.Signal) {
	tb.Helper()
	pid := s.PID()
	must(tb, syscall.Kill(pid, sig))
	if sig == syscall.SIGSTOP {
		tb.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
