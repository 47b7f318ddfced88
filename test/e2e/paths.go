package e2e

import (
	"os"
	"path/filepath"
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
