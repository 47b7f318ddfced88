package containers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestBases: each base image of the project has a stand-in.
func TestBases(t *testing.T) {
	t.Parallel()
	names, err := Bases(e2e.Root())
	if err != nil {
		t.Fatal(err)
	}
	description, err := standInsCompose(names)
	if err != nil {
		t.Fatal(err)
	}
	recipes, err := os.ReadFile(filepath.Join(e2e.Root(), "test", "containers", "standins.Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range standIns {
		if !strings.Contains(description, "target: "+target+"}") {
			t.Errorf("no image needs the stand-in %s", target)
		}
		if !strings.Contains(string(recipes), " AS "+target+"\n") {
			t.Errorf("standins.Dockerfile does not build %s", target)
		}
	}
	if _, err := standInsCompose([]string{"mysql:9.1.0"}); err == nil || !strings.Contains(err.Error(), "mysql:9.1.0") {
		t.Errorf("an unknown base: %v", err)
	}
}

// TestDigests runs the script that pins digests in a copy of the files. Here no registry can be asked, so its docker is
// one that knows a digest for each name. With digests in them, the files still name the same images.
func TestDigests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before := map[string]string{}
	for _, file := range slices.Concat(imageFiles, []string{"scripts/digests.sh"}) {
		if err := copyInto(filepath.Join(e2e.Root(), file), e2e.Root(), dir); err != nil {
			t.Fatal(err)
		}
		before[file] = read(t, filepath.Join(dir, file))
	}
	names, err := Bases(dir)
	if err != nil {
		t.Fatal(err)
	}
	for round, digit := range []string{"1", "2"} { // the second replaces the digests of the first
		script := `[ "$*" = "buildx imagetools inspect --format {{.Manifest.Digest}} $6" ] && printf '%s-%064d' "$6" ` + digit + ` | sha256sum | sed 's/^\([0-9a-f]*\).*/sha256:\1/'`
		out, err := digests(t, dir, script)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		pinned, err := Bases(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(pinned) != len(names) {
			t.Fatalf("got %v of %v", pinned, names)
		}
		for i, name := range pinned {
			if !strings.HasPrefix(name, names[i]+"@sha256:") || !strings.Contains(out, name+"\n") {
				t.Errorf("round %d: %s is pinned as %s; it says:\n%s", round, names[i], name, out)
			}
		}
	}
	if err := withoutDigests(dir); err != nil {
		t.Fatal(err)
	}
	for file, text := range before {
		if got := read(t, filepath.Join(dir, file)); got != text {
			t.Errorf("%s has changed otherwise:\n%s", file, got)
		}
	}
	if out, err := digests(t, dir, "echo something else"); err == nil || !strings.Contains(out, "no digest: something else") {
		t.Errorf("an answer that is no digest: %v\n%s", err, out)
	}
	if out, err := digests(t, dir, "echo not found >&2; exit 1"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("no answer: %v\n%s", err, out)
	}
}

// digests runs digests.sh in dir, with a docker that is this script.
func digests(t *testing.T, dir, docker string) (string, error) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte("#!/bin/sh\n"+docker+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "scripts", "digests.sh"))
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestBaseLabel: the label says what the image is based on.
func TestBaseLabel(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"Dockerfile", "examples/api/Dockerfile"} {
		text := digest.ReplaceAllString(read(t, filepath.Join(e2e.Root(), file)), "")
		found := base.FindAllStringSubmatch(text, -1)
		want := fmt.Sprintf("LABEL org.opencontainers.image.base.name=%q\n", canonical(found[len(found)-1][1]))
		if !strings.Contains(text, want) {
			t.Errorf("%s: want %s", file, want)
		}
	}
}
