package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestImageHasWhatItNeeds builds the gate from no more than .dockerignore lets into the image's build.
func TestImageHasWhatItNeeds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	dir, all := t.TempDir(), false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, let := strings.CutPrefix(line, "!")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "*":
			all = true
		case !let:
			t.Fatalf(".dockerignore: %q is not understood here", line)
		default:
			copyTo(t, filepath.Join(dir, name), filepath.Join(e2e.Root(), name))
		}
	}
	if !all {
		t.Fatal(".dockerignore does not begin with nothing")
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "refrakt-gate"), "./cmd/refrakt-gate")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("build as in the image: %v\n%s", err, out)
	}
}

func copyTo(t *testing.T, to, from string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else {
		var text []byte
		if text, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
