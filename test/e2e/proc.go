package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is generous: the machine may be busy with other tests.
const startTimeout = 60 * time.Second

// Process is one started program and what it wrote.
type Process struct {
	Name string

	cmd  *exec.Cmd
	log  logBuffer
	done chan struct{} // closed when the process has ended
}

// Command is what to start.
type Command struct {
	Name string // for logs and failures
	Path string
	Args []string
	Dir  string
	Env  []string // the whole environment: nothing is inherited
}

// StartProcess starts c and ends it with the test, whose failure shows the log.
func StartProcess(tb testing.TB, c Command) *Process {
	tb.Helper()
	p := &Process{Name: c.Name, done: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Dir, p.cmd.Env = c.Dir, c.Env
	if p.cmd.Env == nil {
		p.cmd.Env = []string{}
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", c.Name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.Stop(tb)
		if tb.Failed() {
			tb.Logf("%s said:\n%s", p.Name, p.Log())
		}
	})
	return p
}

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is everything written so far.
func (p *Process) Log() string { return p.log.String() }

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

// Stop ends the process with SIGTERM and waits; one that doesn't obey is killed, which fails the test.
func (p *Process) Stop(tb testing.TB) {
	tb.Helper()
	if !p.Running() {
		return
	}
	p.Signal(tb, syscall.SIGTERM)
	if p.endedWithin(20 * time.Second) {
		return
	}
	tb.Errorf("%s ignored SIGTERM for 20 s", p.Name)
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
	Poll(tb, startTimeout, fmt.Sprintf("%s to log %q", p.Name, re), func() error {
		if match = re.FindStringSubmatch(p.Log()); match != nil {
			return nil
		}
		if !p.Running() {
			tb.Fatalf("%s ended with exit code %d before it logged %q", p.Name, p.ExitCode(), re)
		}
		return errors.New("not yet")
	})
	return match
}

// logBuffer is a bytes.Buffer that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
