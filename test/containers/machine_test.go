package containers

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestChanges(t *testing.T) {
	t.Parallel()
	before := Machine{"rules": {"a", "b"}, "links": {"lo"}}
	if changes := Changes(before, Machine{"rules": {"b", "a"}, "links": {"lo"}}); len(changes) > 0 {
		t.Errorf("the same: %v", changes)
	}
	after := Machine{"rules": {"a", "c"}, "links": {"lo", "docker0"}, "mounts": {"/x"}}
	want := []string{"links: new: docker0", "mounts: new: /x", "rules: new: c", "rules: gone: b"}
	if changes := Changes(before, after); !slices.Equal(changes, want) {
		t.Errorf("got %v, want %v", changes, want)
	}
}

// TestLook: it sees processes by what is in their command line.
func TestLook(t *testing.T) {
	t.Parallel()
	mark := filepath.Base(t.TempDir()) + "-mark"
	cmd := exec.CommandContext(t.Context(), "sleep", "3600")
	cmd.Args[0] = "sleep-" + mark
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if found := processes(mark); len(found) != 1 || !strings.Contains(found[0], mark) {
		t.Errorf("got %v, want the process that has %s", found, mark)
	}
	if got := noise.ReplaceAllString("# at 12:00\n*filter\n:INPUT ACCEPT [12:3456]\n-A INPUT -j ACCEPT\n", ""); got != "*filter\n:INPUT ACCEPT \n-A INPUT -j ACCEPT\n" {
		t.Errorf("rules: %q", got)
	}
}

// TestPublish: the repository that is cloned has the files of the checkout, committed or not, but none that git ignores.
func TestPublish(t *testing.T) {
	t.Parallel()
	checkout, dir := t.TempDir(), filepath.Join(t.TempDir(), "project")
	for name, text := range map[string]string{".gitignore": "ignored\n", "a/b.sh": "b", "ignored": "x", "new": "n", "gone": "g"} {
		path := filepath.Join(checkout, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := commit(t.Context(), checkout); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gone", "new"} {
		if err := os.Remove(filepath.Join(checkout, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(checkout, "new"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := publish(t.Context(), checkout, dir); err != nil {
		t.Fatal(err)
	}
	if err := commit(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if _, err := output(t.Context(), "", clonesFrom(dir), "git", "clone", "--quiet", Source, clone); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range []string{".gitignore", "a/b.sh", "ignored", "new", "gone"} {
		if text, err := os.ReadFile(filepath.Join(clone, name)); err == nil {
			got = append(got, name+": "+strings.TrimSpace(string(text)))
		}
	}
	if want := []string{".gitignore: ignored", "a/b.sh: b", "new: changed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if info, err := os.Stat(filepath.Join(clone, "a/b.sh")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("a program can't be run any more: %v, %v", info, err)
	}
}

// TestFirstSteps: the README's first steps with Compose are those that are played.
func TestFirstSteps(t *testing.T) {
	t.Parallel()
	if text := read(t, filepath.Join(e2e.Root(), "README.md")); !strings.Contains(text, "```sh\n"+FirstSteps+"```\n") {
		t.Errorf("the README does not have\n%s", FirstSteps)
	}
}
