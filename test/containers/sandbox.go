package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
)

// A sandbox is a process with network, mounts and process numbers of its own. A container engine in it finds no other
// engine, and what it changes (firewall rules, bridges, forwarding, mounts) ends with the sandbox. If its first process
// ends, the kernel ends all others.

// inSandbox runs this program anew in a sandbox, online or not, until it ends or ctx does.
func inSandbox(ctx context.Context, online bool, args, env []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
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
	if online {
		// A process, no rules: the machine's own network does not change. What it fails to do is missed in the sandbox.
		uplink := exec.CommandContext(ctx, "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", strconv.Itoa(cmd.Process.Pid), uplinkName)
		uplink.Stderr = os.Stderr
		if err := uplink.Start(); err != nil {
			cancel()
			return fmt.Errorf("connect the sandbox with the network: %w", errors.Join(err, cmd.Wait()))
		}
		defer func() { cancel(); _ = uplink.Wait() }()
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

// uplinkName is the sandbox's way to the network.
const uplinkName = "tap0"

// awaitUplink waits in the sandbox until it is connected with the network, and has names asked for there.
func awaitUplink(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := polltest.Wait(ctx, func() error {
		link, err := net.InterfaceByName(uplinkName)
		if err != nil {
			return err
		}
		if addrs, err := link.Addrs(); err != nil || len(addrs) == 0 {
			return errors.Join(errors.New("it has no address"), err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for the sandbox to be connected: %w", err)
	}
	const file = "/etc/resolv.conf"
	err = os.Remove(file) // a link, often
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(file, []byte("nameserver 10.0.2.3\n"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("have names asked for in the sandbox: %w", err)
	}
	return nil
}
