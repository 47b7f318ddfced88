// Package process starts the programs that are measured, ends them, and reads what they and the machine used.
package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Group is programs that end together. It has a temporary folder for their files and logs.
type Group struct {
	Dir string

	ctx     context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	running []*Process
}

// NewGroup returns a group without programs. Its programs end with ctx too.
func NewGroup(ctx context.Context) (*Group, error) {
	dir, err := os.MkdirTemp("", "gate-bench")
	if err != nil {
		return nil, fmt.Errorf("create a folder for programs: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &Group{Dir: dir, ctx: ctx, cancel: cancel}, nil
}

// Context ends with the group.
func (g *Group) Context() context.Context { return g.ctx }

// Close ends all programs and removes the folder.
func (g *Group) Close() {
	g.mu.Lock()
	running := slices.Clone(g.running)
	g.mu.Unlock()
	for _, p := range slices.Backward(running) {
		p.Stop()
	}
	g.cancel()
	_ = os.RemoveAll(g.Dir)
}

// CPU is the time that the group's programs have spent on a CPU.
func (g *Group) CPU() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	var sum time.Duration
	for _, p := range g.running {
		sum += p.CPU()
	}
	return sum
}

// Process is one program.
type Process struct {
	Name string

	group *Group
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// Start starts argv with env and PATH as its whole environment.
func (g *Group) Start(name string, env []string, argv ...string) (*Process, error) {
	return g.start(name, false, env, argv)
}

// StartSilent is Start for a program that writes more to its standard output than anybody will read.
func (g *Group) StartSilent(name string, env []string, argv ...string) (*Process, error) {
	return g.start(name, true, env, argv)
}

func (g *Group) start(name string, silent bool, env, argv []string) (*Process, error) {
	p := &Process{Name: name, group: g, log: filepath.Join(g.Dir, name+".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create a log: %w", err)
	}
	defer out.Close()
	p.cmd = exec.CommandContext(g.ctx, argv[0], argv[1:]...)
	p.cmd.Dir = g.Dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.Dir}, env...)
	if p.cmd.Stderr = out; !silent {
		p.cmd.Stdout = out
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if this process is killed itself
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended is of interest only to those who wait for it to serve
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = append(g.running, p)
	return p, nil
}

// Stop kills the program, for there is nothing that it should finish, and waits for its end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	p.group.mu.Lock()
	defer p.group.mu.Unlock()
	p.group.running = slices.DeleteFunc(p.group.running, func(q *Process) bool { return p == q })
}

const startTimeout = 30 * time.Second

// Until waits until ready returns nil. It fails if the program ends before that, or takes too long.
func (p *Process) Until(ready func() error) error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended: %v; it said:\n%s", p.Name, p.cmd.ProcessState, p.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not serve within %v: %w; it said:\n%s", p.Name, startTimeout, err, p.Log())
		}
	}
}

// Log is what the program has written, at most the last of it.
func (p *Process) Log() string {
	const most = 4 << 10
	text, _ := os.ReadFile(p.log) // empty if it can't be read
	return string(text[max(0, len(text)-most):])
}

// Said waits until the program's log matches re, and returns the groups of the match.
func (p *Process) Said(re *regexp.Regexp) (match []string, err error) {
	err = p.Until(func() error {
		text, err := os.ReadFile(p.log)
		if err != nil {
			return err
		}
		if match = re.FindStringSubmatch(string(text)); match == nil {
			return fmt.Errorf("it has not said %q", re)
		}
		return nil
	})
	return match, err
}
