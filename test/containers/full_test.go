//go:build containers

package containers

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// sandboxed is the variable that has the folder of the run, in the sandbox.
const sandboxed = "CONTAINERS_RUN"

// TestContainers plays the story. BASES says where the base images come from: stand-ins made here (the default), or the
// registry.
func TestContainers(t *testing.T) {
	bases := os.Getenv("BASES")
	if bases != "" && bases != "registry" {
		t.Fatalf("BASES=%s is unknown: leave it empty for stand-ins that are made here, or set it to registry", bases)
	}
	online := bases == "registry"
	inRun(t, online, func(ctx context.Context, cache Cache, f Folder) error {
		return prepare(ctx, cache, e2e.Root(), f, !online)
	}, play)
}

// TestEngine says whether a container engine runs on this machine.
func TestEngine(t *testing.T) {
	inRun(t, false, func(context.Context, Cache, Folder) error { return nil }, func(t *testing.T, f Folder) { startEngineFor(t, f) })
}

// inRun calls play in a sandbox, online or not, with a folder that prepare has filled, and compares the machine with what
// it was before.
func inRun(t *testing.T, online bool, prepare func(context.Context, Cache, Folder) error, play func(*testing.T, Folder)) {
	t.Helper()
	if f := Folder(os.Getenv(sandboxed)); f != "" {
		if err := furnish(string(f)); err != nil {
			t.Fatal(err)
		}
		if online {
			if err := awaitUplink(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		play(t, f)
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root can run a container engine of its own: try again as root")
	}
	// After the end of the go command nobody reads what is said here, and there is still something to put back.
	signal.Ignore(unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		t.Fatalf("end with the go command: %v", err)
	}
	cache, err := OpenCache(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	f, err := cache.run()
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Base(string(f))
	before, err := Look(mark)
	if err != nil {
		t.Fatal(err)
	}
	err = prepare(ctx, cache, f)
	if err == nil {
		err = inSandbox(ctx, online, []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=30m"}, []string{sandboxed + "=" + string(f)})
	}
	if err := errors.Join(err, f.remove()); err != nil {
		t.Error(err)
	}
	after, err := Look(mark)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range Changes(before, after) {
		t.Errorf("the machine is not as it was: %s", change)
	}
}
