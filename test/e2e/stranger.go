package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// StartStrangersAPI starts an API that knows nothing of the gate and answers every path. jobs has the paths that begin a
// job, with everything below them, and the names of their SAQ queues.
func StartStrangersAPI(tb testing.TB, queueURL string, jobs map[string]string) *API {
	tb.Helper()
	var entries []string
	for path, queue := range maps.All(jobs) {
		entries = append(entries, path+"="+queue)
	}
	return startAPI(tb, queueURL, map[string]string{"JOBS": strings.Join(entries, ",")},
		"--port", "0", "stranger:app", "--app-dir", filepath.Join(Root(), "test/e2e/testdata"))
}

// oneRoute finds the route in docs/policies.md that stands in place of those in envoy.yaml.
var oneRoute = regexp.MustCompile("(?s)```yaml\n(routes:\n.*?)```")

// AllPathsConfig is the shipped configuration with the one route that docs/policies.md puts in place of all others:
// Envoy asks the gate about every request, and the policy file alone says what is guarded.
func AllPathsConfig(tb testing.TB) string {
	tb.Helper()
	doc, err := os.ReadFile(filepath.Join(Root(), "docs/policies.md"))
	if err != nil {
		tb.Fatal(err)
	}
	route := oneRoute.FindSubmatch(doc)
	if route == nil {
		tb.Fatal("docs/policies.md has no routes")
	}
	text, err := os.ReadFile(filepath.Join(Root(), ShippedConfig))
	if err != nil {
		tb.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "\n              routes:\n")
	_, after, found2 := strings.Cut(rest, "\n  clusters:\n")
	if !found || !found2 {
		tb.Fatal("envoy.yaml has no routes, or no clusters after them")
	}
	indented := regexp.MustCompile("(?m)^(.)").ReplaceAllString(string(route[1]), "              $1")
	file := filepath.Join(tb.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(before+"\n"+indented+"\n  clusters:\n"+after), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}
