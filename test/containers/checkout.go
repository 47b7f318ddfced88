package containers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Source is where the project is cloned from.
const Source = "https://github.com/refrakt-hub/refrakt-gate"

// FirstSteps are the README's, from nothing to the first 429.
const FirstSteps = `git clone https://github.com/refrakt-hub/refrakt-gate && cd refrakt-gate
docker compose up --build --wait
for i in $(seq 11); do curl -s -o /dev/null -w '%{http_code}\n' -X POST localhost:8080/run; done
`

// publish makes a repository in dir of the files of this checkout, committed or not, that git does not ignore.
func publish(ctx context.Context, checkout, dir string) error {
	list, err := output(ctx, checkout, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(list, "\x00"), "\x00") {
		from := filepath.Join(checkout, name)
		info, err := os.Lstat(from)
		if os.IsNotExist(err) || err == nil && !info.Mode().IsRegular() {
			continue // removed, or a link of the developer's own
		}
		if err == nil {
			err = copyInto(from, checkout, dir)
		}
		if err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
	}
	return nil
}

// commit makes a repository of the files in dir.
func commit(ctx context.Context, dir string) error {
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"add", "--all"},
		{"-c", "user.name=containers", "-c", "user.email=containers@localhost", "commit", "--quiet", "--message=the checkout"},
	} {
		if _, err := output(ctx, dir, nil, "git", args...); err != nil {
			return err
		}
	}
	return nil
}

// clonesFrom has git clone Source from dir.
func clonesFrom(dir string) []string {
	return []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url." + dir + ".insteadOf", "GIT_CONFIG_VALUE_0=" + Source}
}

// output runs a program in dir and returns what it prints. The error has what it complained about.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	// It may have something to put back.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return string(out), nil
}
