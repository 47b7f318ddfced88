package containers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Cache keeps what takes long to make between runs, each part under the hash of what it is made of.
type Cache struct {
	Dir string
	// Say is called with what was made and how long that took.
	Say func(format string, args ...any)
}

// OpenCache makes the folder of the cache. `make clean` removes it.
func OpenCache(say func(string, ...any)) (Cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, fmt.Errorf("find a folder for the cache: %w", err)
	}
	c := Cache{filepath.Join(dir, "refrakt-gate", "containers"), say}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return Cache{}, fmt.Errorf("make a folder for the cache: %w", err)
	}
	return c, nil
}

// part returns the file or folder name of the cache. If it is not there for this key, it is made at the path that fill
// is called with, and those for other keys are removed.
func (c Cache) part(name, key string, fill func(to string) error) (string, error) {
	path := filepath.Join(c.Dir, fmt.Sprintf("%s-%.8x", name, sha256.Sum256([]byte(key))))
	if _, err := os.Stat(path); err == nil {
		c.Say("%s: as it was kept in %s", name, c.Dir)
		return path, nil
	}
	begin := time.Now()
	half, err := os.MkdirTemp(c.Dir, name+".part-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the cache: %w", err)
	}
	defer os.RemoveAll(half)
	if err := fill(filepath.Join(half, name)); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	old, _ := filepath.Glob(filepath.Join(c.Dir, name+"-*")) // the pattern is right
	for _, o := range old {
		os.RemoveAll(o)
	}
	if err := os.Rename(filepath.Join(half, name), path); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, err)
	}
	c.Say("%s: made in %v", name, time.Since(begin).Round(time.Second/10))
	return path, nil
}

// compose builds Docker Compose. Its version is in tools/containers/go.mod.
func (c Cache) compose(ctx context.Context, checkout string) (string, error) {
	dir := filepath.Join(checkout, "tools", "containers")
	key, err := contents(filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", err
	}
	return c.part("docker-compose", key, func(to string) error {
		_, err := output(ctx, dir, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, "github.com/docker/compose/v2/cmd")
		return err
	})
}

// debian makes the root of the stand-ins. Its version is the one of the real bases.
func (c Cache) debian(ctx context.Context) (string, error) {
	args := []string{
		"--quiet", "--variant=minbase", "--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io",
		"--include=ca-certificates,python3,python3-pip,redis-server,prometheus,busybox",
	}
	// Prometheus depends on much JavaScript, for its pages.
	for _, unused := range []string{"doc", "man", "locale", "javascript"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+unused+"/*")
	}
	args = append(args, "bookworm")
	return c.part("debian.tar", strings.Join(args, " "), func(to string) error {
		_, err := output(ctx, "", nil, "mmdebstrap", append(args, to)...)
		return err
	})
}

// wheels fetches the packages of the example API for the Python of debian.
func (c Cache) wheels(ctx context.Context, checkout string) (string, error) {
	requirements := filepath.Join(checkout, "examples", "api", "requirements.txt")
	key, err := contents(requirements)
	if err != nil {
		return "", err
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	args := []string{
		"download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--python-version=3.11",
		"--platform=manylinux2014_" + machine, "--platform=manylinux_2_28_" + machine,
		"async-timeout", // which Redis's client wants besides: the real base has a newer Python 3.11
	}
	return c.part("wheels.tar", key+strings.Join(args, " "), func(to string) error {
		dir := filepath.Join(filepath.Dir(to), "wheels")
		if _, err := output(ctx, "", nil, filepath.Join(checkout, ".venv", "bin", "pip"), append(args, "--requirement="+requirements, "--dest="+dir)...); err != nil {
			return err
		}
		_, err := output(ctx, "", nil, "tar", "--create", "--file="+to, "--directory="+filepath.Dir(dir), "wheels")
		return err
	})
}

// golang adds this machine's Go to the root debian, with the gate's modules, and with what this machine's Go has built for
// these platforms.
func (c Cache) golang(ctx context.Context, debian, checkout string, platforms []string) (string, error) {
	key, err := contents(filepath.Join(checkout, "go.mod"), filepath.Join(checkout, "go.sum"))
	if err != nil {
		return "", err
	}
	text, err := output(ctx, checkout, nil, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE")
	if err != nil {
		return "", err
	}
	env := lines(text)
	goroot, modules, built := env[0], env[1], env[2]
	return c.part("golang.tar", debian+runtime.Version()+strings.Join(platforms, " ")+key, func(to string) error {
		dir := filepath.Join(filepath.Dir(to), "root")
		usr, cache := filepath.Join(dir, "usr", "local"), filepath.Join(dir, "go", "cache")
		if err := os.MkdirAll(usr, 0o755); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		for _, command := range [][]string{
			{"cp", "--archive", goroot, filepath.Join(usr, "go")},
			{"rm", "-r", "--force", filepath.Join(usr, "go", "test"), filepath.Join(usr, "go", "api"), filepath.Join(usr, "go", "doc")},
			{"go", "mod", "download"}, // to this machine
			{"env", "GOPROXY=file://" + filepath.Join(modules, "cache", "download"), "GOSUMDB=off", "GOFLAGS=-modcacherw",
				"GOMODCACHE=" + filepath.Join(dir, "go", "pkg", "mod"), "go", "mod", "download"},
		} {
			if _, err := output(ctx, checkout, nil, command[0], command[1:]...); err != nil {
				return err
			}
		}
		for _, platform := range platforms {
			goos, goarch, _ := strings.Cut(platform, "/")
			graph := filepath.Join(filepath.Dir(to), "graph.json")
			if _, err := output(ctx, checkout, []string{"CGO_ENABLED=0", "GOOS=" + goos, "GOARCH=" + goarch},
				"go", "build", "-trimpath", "-buildvcs=false", "-debug-actiongraph="+graph, "-o", os.DevNull, "./cmd/refrakt-gate"); err != nil {
				return err
			}
			if err := copyBuilt(graph, built, cache); err != nil {
				return err
			}
		}
		if _, err := output(ctx, "", nil, "cp", debian, to); err != nil {
			return err
		}
		_, err := output(ctx, "", nil, "tar", "--append", "--owner=0", "--group=0", "--file="+to, "--directory="+dir, "go", "usr/local/go")
		return err
	})
}

// contents are those of the files.
func contents(files ...string) (string, error) {
	var b strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read what a part is made of: %w", err)
		}
		b.Write(text)
	}
	return b.String(), nil
}

// link puts the file from at to, both in the cache's file system.
func link(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return fmt.Errorf("put a part into its place: %w", err)
	}
	return nil
}

// run makes a folder for a run, and removes those of runs that were killed.
func (c Cache) run() (Folder, error) {
	old, _ := filepath.Glob(filepath.Join(c.Dir, runs+"*")) // the pattern is right
	for _, o := range old {
		pid := strings.TrimPrefix(filepath.Base(o), runs)
		if _, err := os.Stat(filepath.Join("/proc", pid)); err == nil {
			continue
		}
		if err := Folder(o).remove(); err != nil {
			return "", err
		}
	}
	f := Folder(filepath.Join(c.Dir, fmt.Sprint(runs, os.Getpid())))
	if err := os.Mkdir(string(f), 0o755); err != nil {
		return "", fmt.Errorf("make a folder for this run: %w", err)
	}
	return f, nil
}

// runs is how the folders of runs begin; the number of the process follows.
const runs = "refrakt-gate-run-"

// remove removes the folder and the control groups that have its name.
func (f Folder) remove() error {
	groups, err := marked("/sys/fs/cgroup", filepath.Base(string(f)))
	if err != nil {
		return fmt.Errorf("look for control groups: %w", err)
	}
	for _, group := range groups {
		below, err := marked(group, "")
		if err != nil {
			return fmt.Errorf("look for control groups: %w", err)
		}
		for _, g := range slices.Backward(below) { // those within others first
			if err := os.Remove(g); err != nil {
				return fmt.Errorf("remove a control group: %w", err)
			}
		}
	}
	if err := os.RemoveAll(string(f)); err != nil {
		return fmt.Errorf("remove the folder of a run: %w", err)
	}
	return nil
}
