package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// Server is a program that answers the requests of a load.
type Server struct {
	*process.Process

	Addr  string
	Redis *Redis // nil: it has none
	// Allocations is the URL that says how much the program has allocated; empty: nothing says so.
	Allocations string
}

// Gate is a way to build and to set a gate.
type Gate struct {
	Name   string
	Binary string
	Env    []string
}

var (
	telemetryLine = regexp.MustCompile(`"msg":"telemetry listening".*"addr":"([^"]+)"`)
	servingLine   = regexp.MustCompile(`"msg":"serving".*"grpc":"([^"]+)"`)
)

// Start runs the gate with its defaults, save for the addresses, its own settings and env. With a nil Redis its buckets
// are in memory and it watches no queue.
func (v Gate) Start(g *process.Group, name string, r *Redis, env ...string) (*Server, error) {
	all := []string{"GRPC_ADDR=127.0.0.1:0", "TELEMETRY_ADDR=127.0.0.1:0"}
	if r != nil {
		all = append(all, "QUEUE_URL="+r.URL())
	}
	all = append(append(all, v.Env...), env...)
	p, err := g.Start(name, all, v.Binary)
	if err != nil {
		return nil, err
	}
	telemetry, err := p.Said(telemetryLine)
	if err != nil {
		return nil, err
	}
	serving, err := p.Said(servingLine)
	if err != nil {
		return nil, err
	}
	return &Server{Process: p, Addr: serving[1], Redis: r, Allocations: "http://" + telemetry[1] + "/metrics"}, nil
}

// Build builds the gate of a checkout into a folder.
func Build(g *process.Group, root, folder string) (string, error) {
	binary := filepath.Join(folder, "refrakt-gate")
	build := exec.CommandContext(g.Context(), "go", "build", "-trimpath", "-o", binary, "./cmd/refrakt-gate")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gate of %s: %w\n%s", root, err, out)
	}
	return binary, nil
}
