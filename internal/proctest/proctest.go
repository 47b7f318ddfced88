// Package proctest runs programs for tests: it starts them, waits for what they say,
// and ends them with the test.
package proctest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
)

const (
	// StartTimeout is how long a program may take to serve. It is generous: the machine may
	// be busy with other tests.
	StartTimeout = 60 * time.Second
	// stopTimeout is how long a process may take to obey SIGTERM.
	stopTimeout = 20 * time.Second
)

// Command is what to start.
type Command struct {
	Name string // for logs and failures
	Path string // of the program, or its name if it is in the PATH
	Args []string
	Dir  string
	Env  []string // the whole environment: nothing is inherited
	// Kill ends the process with SIGKILL, for there is nothing that it should finish.
	Kill bool
}

// LogDir is a folder for the logs of all processes, by their names; empty: they are kept
// in memory.
var LogDir string

// Process is a started program and what it wrote.
type Process struct {
	Name string

	command Command
	cmd     *exec.Cmd
	log     log
	done    chan struct{} // closed when the process has ended
}

// Start starts c and ends it with the test, whose failure shows the log.
func Start(tb testing.TB, c Command) *Process {
	tb.Helper()
	p := &Process{Name: c.Name, log: newLog(tb, c.Name)}
	p.launch(tb, c)
	tb.Cleanup(func() {
		p.Stop(tb)
		if tb.Failed() {
			tb.Logf("%s said:\n%s", p.Name, p.Log())
		}
	})
	return p
}

// Restart ends the process if it runs, and starts c in its place.
func (p *Process) Restart(tb testing.TB, c Command) {
	tb.Helper()
	p.Stop(tb)
	p.launch(tb, c)
}

func (p *Process) launch(tb testing.TB, c Command) {
	tb.Helper()
	cmd, done := exec.Command(c.Path, c.Args...), make(chan struct{})
	cmd.Dir, cmd.Env = c.Dir, c.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.WaitDelay = 5 * time.Second // what a process leaves behind may hold its output open
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", c.Name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	p.command, p.cmd, p.done = c, cmd, done
}

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is everything written so far.
func (p *Process) Log() string { return p.log.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode is the exit code of an ended process, -1 while it runs or when a signal ended it.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends sig; a process that has ended already is no failure.
func (p *Process) Signal(tb testing.TB, sig os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Errorf("send %v to %s: %v", sig, p.Name, err)
	}
}

// Wait waits until the process has ended by itself.
func (p *Process) Wait(tb testing.TB, timeout time.Duration) {
	tb.Helper()
	if !p.endedWithin(timeout) {
		tb.Fatalf("%s still runs after %v", p.Name, timeout)
	}
}

// Stop ends the process with SIGTERM and waits; one that doesn't obey is killed, which
// fails the test. One whose command says Kill is killed at once.
func (p *Process) Stop(tb testing.TB) {
	tb.Helper()
	switch {
	case !p.Running():
		return
	case p.command.Kill:
		p.Kill(tb)
		return
	}
	p.Signal(tb, syscall.SIGTERM)
	if p.endedWithin(stopTimeout) {
		return
	}
	tb.Errorf("%s ignored SIGTERM for %v", p.Name, stopTimeout)
	p.Kill(tb)
}

// Kill ends the process with SIGKILL and waits.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	p.Signal(tb, syscall.SIGKILL)
	<-p.done
}

func (p *Process) endedWithin(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// WaitLog waits until the log matches re and returns the first match's groups.
func (p *Process) WaitLog(tb testing.TB, re *regexp.Regexp) []string {
	tb.Helper()
	var match []string
	polltest.Until(tb, StartTimeout, fmt.Sprintf("%s to log %q", p.Name, re), func() error {
		running := p.Running() // asked first: what it said at its end counts
		if match = re.FindStringSubmatch(p.Log()); match != nil {
			return nil
		}
		if !running {
			tb.Fatalf("%s ended with exit code %d before it logged %q", p.Name, p.ExitCode(), re)
		}
		return errors.New("not yet")
	})
	return match
}
