// Package redistest starts real redis-servers for tests: one process each, on a
// unix socket in a temporary folder, ended when the test ends.
package redistest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
)

// Server is one redis-server process.
type Server struct {
	// Socket is the unix socket it listens on; it stays the same over Restart.
	Socket string

	// Env is added to the environment of the process at its next start.
	Env []string

	tb      testing.TB
	args    []string
	process *proctest.Process
}

// Start runs a redis-server that keeps nothing on disk and waits until it
// answers. Further args are appended to its command line. A machine without
// redis-server fails the test.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, func(string) []string { return nil }, args...)
}

// start is Start with what first says, for the server's folder, at the beginning
// of the command line.
func start(tb testing.TB, first func(dir string) []string, args ...string) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("redis-server is not installed: run `apt-get install redis-server` (or `make setup`)")
	}
	// Not tb.TempDir: a socket path has at most 107 bytes, and test names are long.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		tb.Fatalf("create redis folder: %v", err)
	}
	s := &Server{Socket: filepath.Join(dir, "redis.sock"), tb: tb}
	s.args = slices.Concat(first(dir), []string{
		"--port", "0", "--unixsocket", s.Socket, "--dir", dir,
		"--save", "", "--appendonly", "no", "--daemonize", "no",
	}, args)
	tb.Cleanup(func() { os.RemoveAll(dir) }) // after the process has ended
	s.Restart()
	return s
}

// URL is the server's address as QUEUE_URL takes it.
func (s *Server) URL() string { return "unix://" + s.Socket }

// PID is the id of the running process.
func (s *Server) PID() int { return s.process.PID() }

// Client returns a client that is closed when the test ends.
func (s *Server) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	return s.ClientOf(tb, 0)
}

// ClientOf is Client for a database of this number.
func (s *Server) ClientOf(tb testing.TB, database int) *redis.Client {
	tb.Helper()
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: s.Socket, DB: database, MaxRetries: -1, ContextTimeoutEnabled: true})
	tb.Cleanup(func() { c.Close() })
	return c
}

// Kill ends the process at once (SIGKILL) and waits for it; its data is lost.
func (s *Server) Kill() {
	s.tb.Helper()
	s.process.Kill(s.tb)
}

// Restart starts the process anew on the same socket (ending it first if it
// runs), and waits until it accepts connections. Further args are for this and
// later starts.
func (s *Server) Restart(args ...string) {
	s.tb.Helper()
	s.Launch(args...)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		s.tb.Fatalf("wait for redis-server: %v", err)
	}
}

// Launch is Restart without the waiting.
func (s *Server) Launch(args ...string) {
	s.tb.Helper()
	s.args = append(s.args, args...)
	c := proctest.Command{Name: "redis-server", Path: "redis-server", Args: s.args, Env: append(os.Environ(), s.Env...), Kill: true}
	if s.process == nil {
		s.process = proctest.Start(s.tb, c)
	} else {
		s.process.Restart(s.tb, c)
	}
}

// WaitReady waits until the server answers and has loaded its data.
func (s *Server) WaitReady(ctx context.Context) error {
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: s.Socket, MaxRetries: -1, ContextTimeoutEnabled: true})
	defer c.Close()
	err := polltest.Wait(ctx, func() error {
		if err := c.Ping(ctx).Err(); err != nil && !strings.HasPrefix(err.Error(), "NOAUTH") {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("no answer on %s: %w", s.Socket, err)
	}
	return nil
}
