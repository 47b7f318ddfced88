package servers

import (
	"net"
	"path/filepath"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// StartAPI runs python/api.py under uvicorn with one worker. With a Redis, fastapi-limiter limits it.
func StartAPI(g *process.Group, name, python, sources string, r *Redis) (*Server, error) {
	addr, err := freePort(g.Context())
	if err != nil {
		return nil, err
	}
	var env []string
	if r != nil {
		env = []string{"LIMITER_REDIS_URL=" + r.URL()}
	}
	_, port, _ := net.SplitHostPort(addr)
	p, err := g.Start(name, env, python, "-m", "uvicorn", "api:app", "--app-dir", filepath.Join(sources, "python"),
		"--host", "127.0.0.1", "--port", port, "--workers", "1", "--no-access-log", "--log-level", "warning")
	if err != nil {
		return nil, err
	}
	return &Server{Process: p, Addr: addr, Redis: r}, p.Until(func() error { return listens(g.Context(), addr) })
}
