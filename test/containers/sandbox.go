package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A sandbox is a process with network, mounts and process numbers of its own. A container engine in it finds no other
// engine, and what it changes (firewall rules, bridges, forwarding, mounts) ends with the sandbox. If its first process
// ends, the kernel ends all others.

// inSandbox runs this program anew in a sandbox, until it ends or ctx does. started is called with its process number.
func inSandbox(ctx context.Context, args, env []string, started func(pid int) error) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		// If this process is killed, the sandbox ends too. It ends with the thread that started it.
		Pdeathsig: syscall.SIGKILL,
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a process with network, mounts and process numbers of its own, as root: %w", err)
	}
	if err := started(cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("in the sandbox: %w", errors.Join(ctx.Err(), err))
	}
	return nil
}

// furnish prepares the sandbox that this process is the first of. What is written to /etc and /opt is in dir.
func furnish(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// Sockets of another engine are there.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, name := range []string{"etc", "opt"} {
		upper, work := filepath.Join(dir, name), filepath.Join(dir, name+".work")
		for _, d := range []string{upper, work} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return fmt.Errorf("make a folder: %w", err)
			}
		}
		if err := unix.Mount("overlay", "/"+name, "overlay", 0, fmt.Sprintf("lowerdir=/%s,upperdir=%s,workdir=%s", name, upper, work)); err != nil {
			return fmt.Errorf("mount an overlay on /%s: %w", name, err)
		}
	}
	return loopback()
}

// loopback brings the sandbox's loopback up.
func loopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}
