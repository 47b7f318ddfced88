package process

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Run starts argv as Start does, waits for its end, and returns how long it took and the peak of its resident memory in
// bytes. It fails if the program does, or has not ended in time.
//
// The kernel's own peak of an ended program is no use: it begins with the memory of this process.
func (g *Group) Run(name string, env []string, timeout time.Duration, argv ...string) (took time.Duration, peak int64, err error) {
	begun := time.Now()
	p, err := g.Start(name, env, argv...)
	if err != nil {
		return 0, 0, err
	}
	defer p.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			if !p.cmd.ProcessState.Success() {
				err = fmt.Errorf("%s has failed: %v; it said:\n%s", p.Name, p.cmd.ProcessState, p.Log())
			}
			return time.Since(begun), peak, err
		case <-tick.C:
			peak = max(peak, p.peak())
		}
		if time.Since(begun) > timeout {
			return 0, 0, fmt.Errorf("%s has not ended within %v; it said:\n%s", p.Name, timeout, p.Log())
		}
	}
}

// peak is the peak of the program's resident memory so far, in bytes; 0 if it has ended.
func (p *Process) peak() (bytes int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)) // empty if it has ended
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	_, _ = fmt.Sscan(rest, &bytes)
	return bytes << 10
}
