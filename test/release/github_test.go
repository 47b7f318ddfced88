package release

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// tracked are the files of the repository.
func tracked(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", e2e.Root(), "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestUpdatesCoverAll: each file that pins versions is one that updates are proposed for.
func TestUpdatesCoverAll(t *testing.T) {
	t.Parallel()
	var config struct {
		Updates []struct {
			Ecosystem   string   `yaml:"package-ecosystem"`
			Directory   string   `yaml:"directory"`
			Directories []string `yaml:"directories"`
		} `yaml:"updates"`
	}
	if err := yaml.Unmarshal(read(t, ".github/dependabot.yml"), &config); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, u := range config.Updates {
		all := u.Directories
		if u.Directory != "" {
			all = append(all, u.Directory)
		}
		got[u.Ecosystem] = append(got[u.Ecosystem], all...)
	}
	want := map[string][]string{"github-actions": {"/"}}
	for _, file := range tracked(t) {
		dir, name := "/"+strings.TrimSuffix(path.Dir(file), "."), path.Base(file)
		for ecosystem, pattern := range map[string]string{
			"gomod": "go.mod", "pip": "requirements*.txt", "docker": "Dockerfile", "docker-compose": "docker-compose.yml",
		} {
			if ok, _ := path.Match(pattern, name); ok && !slices.Contains(want[ecosystem], dir) {
				want[ecosystem] = append(want[ecosystem], dir)
			}
		}
	}
	for ecosystem, dirs := range want {
		slices.Sort(dirs)
		slices.Sort(got[ecosystem])
		if !slices.Equal(dirs, got[ecosystem]) {
			t.Errorf("%s: updates for %v, the repository has %v", ecosystem, got[ecosystem], dirs)
		}
		delete(got, ecosystem)
	}
	for ecosystem := range got {
		t.Errorf("%s: the repository has none", ecosystem)
	}
}

// TestWorkflowsCallWhatIsThere: the scripts and make targets of the workflows are there, and actions are pinned by their
// commit.
func TestWorkflowsCallWhatIsThere(t *testing.T) {
	t.Parallel()
	makefile := string(read(t, "Makefile"))
	action := regexp.MustCompile(`uses: (\S+)( # v\d+\.\d+\.\d+)?`)
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	called := regexp.MustCompile(`(?:scripts/[\w-]+\.sh|\.ci/run)\b`)
	target := regexp.MustCompile(`\bmake ([a-z-]+)`)
	found := 0
	for _, file := range []string{".github/workflows/ci.yml", ".github/workflows/release.yml"} {
		text := string(read(t, file))
		for _, m := range action.FindAllStringSubmatch(text, -1) {
			if !pinned.MatchString(m[1]) || m[2] == "" {
				t.Errorf("%s: %s is not pinned by its commit, with the version beside it", file, m[1])
			}
		}
		for _, name := range called.FindAllString(text, -1) {
			found++
			if info, err := os.Stat(filepath.Join(e2e.Root(), name)); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("%s: %s can't be run: %v", file, name, err)
			}
		}
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			found++
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: the Makefile has no target %s", file, m[1])
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d calls found", found)
	}
}

// TestOneGo: workflows build with the Go of the Dockerfile, so that the archive has the binary of the image.
func TestOneGo(t *testing.T) {
	t.Parallel()
	image := regexp.MustCompile(`golang:(\d+\.\d+\.\d+)-`).FindSubmatch(read(t, "Dockerfile"))
	if image == nil {
		t.Fatal("the Dockerfile names no version of Go")
	}
	for _, file := range []string{".github/workflows/ci.yml", ".github/workflows/release.yml"} {
		found := regexp.MustCompile(`go-version: "([^"]+)"`).FindAllSubmatch(read(t, file), -1)
		if len(found) != 2 {
			t.Errorf("%s sets Go up %d times, want 2", file, len(found))
		}
		for _, m := range found {
			if string(m[1]) != string(image[1]) {
				t.Errorf("%s has Go %s, the Dockerfile %s", file, m[1], image[1])
			}
		}
	}
}

// TestLintFindsMistakes: what `make lint` reads .github with refuses a planted mistake of each kind.
func TestLintFindsMistakes(t *testing.T) {
	t.Parallel()
	const workflow = ".github/workflows/ci.yml"
	for name, tt := range map[string]struct {
		file, from, to string
		tool           []string // FILE is the file with the mistake
		want           string
	}{
		"a key that workflows do not have": {workflow, "timeout-minutes:", "timeout-minute:", actionlint, "timeout-minute"},
		"an expression that is not there":  {workflow, "github.ref", "github.reff", actionlint, "reff"},
		"a token that is left behind":      {workflow, "persist-credentials: false", "clean: true", zizmor, "artipacked"},
		"an action by its tag":             {workflow, "checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "checkout@v7", zizmor, "unpinned-uses"},
		"an ecosystem that is not there":   {".github/dependabot.yml", "gomod", "go", schema("vendor.dependabot"), "ecosystem"},
		"a form without a label":           {".github/ISSUE_TEMPLATE/bug.yml", "label: Version", "lable: Version", schema("vendor.github-issue-forms"), "label"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tool := tt.tool[0]; strings.Contains(tool, "/") {
				if _, err := os.Stat(filepath.Join(e2e.Root(), tool)); err != nil {
					t.Fatalf("%s is not installed: run `make setup`", tool)
				}
			}
			text := read(t, tt.file)
			if !bytes.Contains(text, []byte(tt.from)) {
				t.Fatalf("%s has no %q", tt.file, tt.from)
			}
			for _, mistake := range []bool{false, true} {
				to := tt.from
				if mistake {
					to = tt.to
				}
				file := filepath.Join(t.TempDir(), ".github", "workflows", path.Base(tt.file))
				if path.Base(tt.file) == "dependabot.yml" {
					file = filepath.Join(filepath.Dir(filepath.Dir(file)), "dependabot.yml")
				}
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte(tt.from), []byte(to)), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), tt.tool[0], append(slices.Clone(tt.tool[1:]), file)...)
				cmd.Dir = e2e.Root()
				out, err := cmd.CombinedOutput()
				if (err != nil) != mistake || mistake && !strings.Contains(string(out), tt.want) {
					t.Errorf("with the mistake: %v; refused: %v\n%s", mistake, err, out)
				}
			}
		})
	}
}

var (
	actionlint = []string{"go", "tool", "-modfile=tools/actionlint/go.mod", "actionlint", "-shellcheck=", "-pyflakes="}
	zizmor     = []string{"tools/.venv/bin/zizmor", "--offline", "--quiet", "--persona", "pedantic"}
)

func schema(name string) []string {
	return []string{"tools/.venv/bin/check-jsonschema", "--builtin-schema", name}
}
