// Package servers starts what is measured, each on the loopback and a port that the kernel chose.
package servers

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// Redis is a redis-server with nothing on disk.
type Redis struct {
	*process.Process
	*redis.Client

	Addr string
}

// StartRedis starts a redis-server.
func StartRedis(g *process.Group, name string) (*Redis, error) {
	addr, err := freePort(g.Context())
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	socket := filepath.Join(g.Dir, name+".sock")
	p, err := g.Start(name, nil, "redis-server", "--bind", "127.0.0.1", "--port", port, "--unixsocket", socket,
		"--save", "", "--appendonly", "no", "--dir", g.Dir)
	if err != nil {
		return nil, err
	}
	r := &Redis{Process: p, Addr: addr, Client: redis.NewClient(&redis.Options{Network: "unix", Addr: socket, MaxRetries: -1, PoolSize: 2})}
	return r, p.Until(func() error { return r.Ping(g.Context()).Err() })
}

// URL is the server's address as QUEUE_URL takes it.
func (r *Redis) URL() string { return "redis://" + r.Addr + "/0" }

// Command is how often a command was called, and the microseconds that it took in all.
type Command struct{ Calls, Micros float64 }

// Commands is what INFO says of each command.
func (r *Redis) Commands(ctx context.Context) (map[string]Command, error) {
	text, err := r.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, fmt.Errorf("ask Redis for its commands: %w", err)
	}
	commands := make(map[string]Command)
	for line := range strings.Lines(text) {
		name, numbers, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":")
		if !ok {
			continue
		}
		var c Command
		if _, err := fmt.Sscanf(numbers, "calls=%f,usec=%f", &c.Calls, &c.Micros); err != nil {
			return nil, fmt.Errorf("read %q: %w", line, err)
		}
		commands[name] = c
	}
	return commands, nil
}

// UsedMemory is the bytes that Redis says it uses.
func (r *Redis) UsedMemory(ctx context.Context) (int64, error) {
	return r.number(ctx, "memory", "used_memory")
}

// Reads is how often Redis has read from a connection: at least once for each command or pipeline of a client, and
// never for what a script does.
func (r *Redis) Reads(ctx context.Context) (float64, error) {
	n, err := r.number(ctx, "stats", "total_reads_processed")
	return float64(n), err
}

// number is one number of a section of INFO.
func (r *Redis) number(ctx context.Context, section, name string) (n int64, err error) {
	text, err := r.Info(ctx, section).Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its %s: %w", section, err)
	}
	_, rest, _ := strings.Cut(text, name+":")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}
