package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPU is the time that all threads of the program have spent on a CPU, to the nanosecond.
func (p *Process) CPU() time.Duration { return cpu(strconv.Itoa(p.cmd.Process.Pid)) }

// OwnCPU is the same for this process.
func OwnCPU() time.Duration { return cpu("self") }

func cpu(pid string) time.Duration {
	files, _ := filepath.Glob(filepath.Join("/proc", pid, "task/*/schedstat")) // the pattern is well formed
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		onCPU, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(onCPU, 10, 64)
		if err == nil {
			sum += time.Duration(ns)
		}
	}
	return sum
}

// Memory is the program's resident memory in bytes.
func (p *Process) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.Name, err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read the memory of %s: it has ended", p.Name)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Idle is the time that all CPUs of the machine have spent idle, and the time that a hypervisor took from them.
func Idle() (idle, stolen time.Duration) {
	text, _ := os.ReadFile("/proc/stat") // 0 if it can't be read
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, 0
	}
	const tick = 10 * time.Millisecond
	ticks := func(field int) time.Duration {
		n, _ := strconv.ParseInt(fields[field], 10, 64)
		return time.Duration(n) * tick
	}
	return ticks(4) + ticks(5), ticks(8)
}

// LoadAverage is the machine's load average, as /proc/loadavg spells it.
func LoadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}
