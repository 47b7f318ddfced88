package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// checkout is a folder with the files that name a version, and the scripts that read them.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range []string{
		"CHANGELOG.md", "deploy/chart/Chart.yaml", "deploy/kubernetes/base/kustomization.yaml", "scripts/check-version.sh", "scripts/changelog.sh",
	} {
		text, err := os.ReadFile(filepath.Join(e2e.Root(), file))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// script runs a script of the checkout and returns whether it succeeded, and what it printed.
func script(t *testing.T, dir, name string, args ...string) (ok bool, out string) {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), filepath.Join(dir, "scripts", name), args...).CombinedOutput()
	return err == nil, string(text)
}

// TestVersionsAgree: a release needs the same version everywhere, and a changelog.
func TestVersionsAgree(t *testing.T) {
	t.Parallel()
	const chart, base = "deploy/chart/Chart.yaml", "deploy/kubernetes/base/kustomization.yaml"
	for name, tt := range map[string]struct {
		file, from, to string
		want           string // in the refusal; empty: it agrees
	}{
		"as it is":               {"CHANGELOG.md", "# Changelog", "# Changelog", ""},
		"another chart":          {chart, "\nversion: 0.1.0\n", "\nversion: 0.1.1\n", `deploy/chart/Chart.yaml has no line "version: 0.1.0"`},
		"another app":            {chart, "\nappVersion: 0.1.0\n", "\nappVersion: 0.1.1\n", `deploy/chart/Chart.yaml has no line "appVersion: 0.1.0"`},
		"another image":          {base, "newTag: v0.1.0", "newTag: v0.1.1", `kustomization.yaml has no line "  newTag: v0.1.0"`},
		"an image without a v":   {base, "newTag: v0.1.0", "newTag: 0.1.0", `kustomization.yaml has no line "  newTag: v0.1.0"`},
		"no changelog":           {"CHANGELOG.md", "## [0.1.0] - ", "## [0.0.9] - ", "CHANGELOG.md has no heading"},
		"a changelog, no date":   {"CHANGELOG.md", "## [0.1.0] - ", "## [0.1.0] soon ", "CHANGELOG.md has no heading"},
		"changes not moved down": {"CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- Something.\n", "CHANGELOG.md has changes under Unreleased"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := checkout(t)
			// The changes that are to come are another matter.
			replace(t, filepath.Join(dir, "CHANGELOG.md"), unreleased(t, dir), "## [Unreleased]\n\n")
			replace(t, filepath.Join(dir, tt.file), tt.from, tt.to)
			ok, out := script(t, dir, "check-version.sh", "v0.1.0")
			if ok != (tt.want == "") || !strings.Contains(out, tt.want) {
				t.Errorf("it succeeds: %v, and says %q, want %q", ok, out, tt.want)
			}
		})
	}
	for _, tag := range []string{"", "0.1.0", "v0.1", "v0.1.0-rc1", "v01.0.0", "v0.1.0\nv0.1.0"} {
		if ok, out := script(t, e2e.Root(), "check-version.sh", tag); ok || !strings.Contains(out, "is not vX.Y.Z") {
			t.Errorf("%q: it succeeds: %v, and says %q", tag, ok, out)
		}
	}
}

// unreleased is what the changelog has under Unreleased, with the heading.
func unreleased(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "## [Unreleased]\n")
	part, _, more := strings.Cut(after, "## [")
	if !ok || !more {
		t.Fatal("CHANGELOG.md has no Unreleased before a version")
	}
	return "## [Unreleased]\n" + part
}

func replace(t *testing.T, file, from, to string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), from) != 1 {
		t.Fatalf("%s has %q not exactly once", file, from)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), from, to, 1)), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestNotes: the text of a release is its part of the changelog.
func TestNotes(t *testing.T) {
	t.Parallel()
	dir := checkout(t)
	const log = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-01-02\n\n### Added\n\n- One.\n\n- Two [x].\n\n## [1.1.0] - 2026-01-01\n\n- Old.\n\n[x]: https://example.com\n"
	if err := os.WriteFile(filepath.Join(dir, "CHANGELOG.md"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"v1.2.0": "### Added\n\n- One.\n\n- Two [x].\n", "1.1.0": "- Old.\n", "Unreleased": ""} {
		if ok, got := script(t, dir, "changelog.sh", version); !ok || got != want {
			t.Errorf("%s: it succeeds: %v, and prints %q, want %q", version, ok, got, want)
		}
	}
	if ok, out := script(t, dir, "changelog.sh", "v1.2"); ok {
		t.Errorf("v1.2, which there is not: %q", out)
	}
}

// TestSignsDigestsOnly: what is signed is named by its digest, because a tag can be moved in between.
func TestSignsDigestsOnly(t *testing.T) {
	t.Parallel()
	const good = "ghcr.io/refrakt-hub/refrakt-gate@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for _, args := range [][]string{{"ghcr.io/refrakt-hub/refrakt-gate:v0.1.0", good, "f"}, {good, "ghcr.io/refrakt-hub/charts/refrakt-gate@", "f"}} {
		if ok, out := script(t, e2e.Root(), "sign.sh", args...); ok || !strings.Contains(out, "has no digest") {
			t.Errorf("%v: it succeeds: %v, and says %q", args, ok, out)
		}
	}
}

// fake puts a program into a folder that stands before all others in PATH. There is no registry and no GitHub to run the
// real one with.
func fake(t *testing.T, dir, name, shell string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+shell+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// scriptWith runs a script of the repository with programs of a folder, in that folder.
func scriptWith(t *testing.T, dir, name string, args ...string) (ok bool, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(e2e.Root(), "scripts", name), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "GITHUB_REPOSITORY=refrakt-hub/refrakt-gate")
	text, err := cmd.CombinedOutput()
	return err == nil, string(text)
}

// TestUnreleased: a version is released once. If GitHub does not say that it is not there, it is not released either.
func TestUnreleased(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]struct {
		ok  bool
		say string
	}{
		`echo '{"id": 1}'`: {false, "has been released"},
		`echo 'gh: Not Found (HTTP 404)' >&2; exit 1`:       {true, ""},
		`echo 'gh: Bad credentials (HTTP 401)' >&2; exit 1`: {false, "HTTP 401"},
	} {
		dir := t.TempDir()
		fake(t, dir, "gh", `[ "$*" = "api repos/refrakt-hub/refrakt-gate/releases/tags/v0.1.0" ] || exit 9; `+answer)
		if ok, out := scriptWith(t, dir, "unreleased.sh", "v0.1.0"); ok != want.ok || !strings.Contains(out, want.say) {
			t.Errorf("%s: it succeeds: %v, and says %q", answer, ok, out)
		}
	}
}

// TestPushes: the digests that are signed are those that docker and helm say. Without one there is no file, not even an
// older one.
func TestPushes(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for name, tt := range map[string]struct {
		program, shell, script string
		ok                     bool
	}{
		"image":              {"docker", `for a; do [ "$last" = --metadata-file ] && echo '{"containerimage.digest": "` + digest + `"}' >"$a"; last=$a; done`, "release-image.sh", true},
		"image, push failed": {"docker", `[ "$2" != build ]`, "release-image.sh", false},
		"chart":              {"helm", `[ "$1" = package ] || printf 'Pushed: x\nDigest: ` + digest + `\n' >&2`, "release-chart.sh", true},
		"chart, push failed": {"helm", `[ "$1" = package ]`, "release-chart.sh", false},
		"chart, no digest":   {"helm", `echo Pushed`, "release-chart.sh", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fake(t, dir, tt.program, tt.shell)
			file := filepath.Join(dir, "digest")
			if err := os.WriteFile(file, []byte("sha256:old\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			ok, out := scriptWith(t, dir, tt.script, "ghcr.io/refrakt-hub/x", "v0.1.0", "digest")
			text, err := os.ReadFile(file)
			if ok != tt.ok || tt.ok && string(text) != digest+"\n" || !tt.ok && err == nil {
				t.Errorf("it succeeds: %v; the file has %q\n%s", ok, text, out)
			}
		})
	}
}
