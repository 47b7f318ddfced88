package proctest_test

import (
	"errors"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
)

func sh(script string) proctest.Command {
	return proctest.Command{Name: "sh", Path: "/bin/sh", Args: []string{"-c", script}}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := proctest.Start(t, sh("echo hello, $HOME.; exit 3"))
	if got := p.WaitLog(t, regexp.MustCompile(`hello, (.*)\.`))[1]; got != "" {
		t.Errorf("the environment of the test is inherited: HOME=%s", got)
	}
	p.Wait(t, 20*time.Second)
	if p.Running() || p.ExitCode() != 3 {
		t.Errorf("running: %v, exit code %d, want 3", p.Running(), p.ExitCode())
	}
	p.Restart(t, sh("echo again; exec sleep 1000"))
	p.WaitLog(t, regexp.MustCompile("again"))
	if !strings.Contains(p.Log(), "hello") || !p.Running() || p.ExitCode() != -1 {
		t.Errorf("running: %v, exit code %d, log %q", p.Running(), p.ExitCode(), p.Log())
	}
	select {
	case <-p.Done():
		t.Error("it has ended")
	default:
	}
	p.Kill(t)
	<-p.Done()
}

// TestStop: a process may finish what it does, unless its command says that there is nothing to finish.
func TestStop(t *testing.T) {
	t.Parallel()
	const script = `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done`
	for _, kill := range []bool{false, true} {
		c := sh(script)
		c.Kill, c.Env = kill, []string{"PATH=/usr/bin:/bin"}
		p := proctest.Start(t, c)
		p.WaitLog(t, regexp.MustCompile("ready"))
		p.Stop(t)
		if got := strings.Contains(p.Log(), "bye"); got == kill {
			t.Errorf("killed: %v, but it could finish: %v", kill, got)
		}
	}
}

// TestEndsWithTheTest: nothing that a test starts outlives it.
func TestEndsWithTheTest(t *testing.T) {
	t.Parallel()
	var p *proctest.Process
	var first int
	t.Run("starts", func(t *testing.T) {
		p = proctest.Start(t, sh("exec sleep 1000"))
		first = p.PID()
		p.Restart(t, sh("exec sleep 1000"))
	})
	if p.Running() {
		t.Error("it runs on")
	}
	if err := syscall.Kill(first, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the one before it runs on: %v", err)
	}
}
