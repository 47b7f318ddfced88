package containers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
)

// Engine is a Docker engine of our own, in a sandbox.
type Engine struct {
	// Env is the environment of programs that use it.
	Env []string
	end func()
}

// startEngine starts an engine with all that it has in dir. The plugin docker-compose is in dir too.
func startEngine(ctx context.Context, dir string) (*Engine, error) {
	plugins := filepath.Join(dir, "config", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	if err := os.Symlink(filepath.Join(dir, "docker-compose"), filepath.Join(plugins, "docker-compose")); err != nil {
		return nil, fmt.Errorf("install Compose: %w", err)
	}
	settings := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(settings, []byte("{}"), 0o600); err != nil {
		return nil, fmt.Errorf("write the engine's settings: %w", err)
	}
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	log := filepath.Join(dir, "dockerd.log")
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("make the engine's log: %w", err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "dockerd", "--config-file", settings, "--host", socket, "--log-level", "warn",
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "docker.pid"),
		"--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/"+filepath.Base(dir))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	ended, exit := make(chan struct{}), error(nil)
	go func() { exit = cmd.Wait(); close(ended) }()
	e := &Engine{
		Env: []string{"DOCKER_HOST=" + socket, "DOCKER_CONFIG=" + filepath.Join(dir, "config")},
		end: func() { _ = cmd.Process.Signal(unix.SIGTERM); <-ended },
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = polltest.Wait(ready, func() error {
		select {
		case <-ended:
			cancel()
			return fmt.Errorf("dockerd ended: %w", exit)
		default:
			_, err := output(ready, "", e.Env, "docker", "version")
			return err
		}
	})
	if err == nil {
		return e, nil
	}
	e.end()
	text, _ := os.ReadFile(log) // without it, the error says less
	return nil, fmt.Errorf("no container engine runs on this machine: %w\n%s", err, tail(string(text), 20))
}

// tail returns the last n lines.
func tail(text string, n int) string {
	all := lines(text)
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
