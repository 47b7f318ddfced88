// Package watch tests what watches the gate: the scrape configurations, rules and alerts in deploy/prometheus and the
// dashboard in deploy/grafana, on a real Prometheus that scrapes real gates.
package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

const token = "a-token-of-the-tests"

// deployed is a copy of deploy/prometheus, with the file of the token that operators add to it.
func deployed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(e2e.Root(), "deploy", "prometheus"))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "refrakt-gate.token"), token+"\n")
	return dir
}

// replace rewrites a file. What is replaced must be in it exactly once, so that a changed file can't be tested with
// the old text left in it.
func replace(t *testing.T, file string, oldnew ...string) {
	t.Helper()
	text := read(t, file)
	for i := 0; i < len(oldnew); i += 2 {
		if n := strings.Count(text, oldnew[i]); n != 1 {
			t.Fatalf("%s: %q is in it %d times, want once", file, oldnew[i], n)
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	write(t, file, text)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, file)), into); err != nil {
		t.Fatalf("parse %s: %v", file, err)
	}
}

// glob is the files that match; none fails the test.
func glob(t *testing.T, elem ...string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(elem...))
	if err != nil || len(files) == 0 {
		t.Fatalf("find %s: %v, %d files", filepath.Join(elem...), err, len(files))
	}
	return files
}
