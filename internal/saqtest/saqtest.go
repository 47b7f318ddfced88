// Package saqtest runs Python programs that use the real SAQ.
package saqtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Python is the interpreter that has SAQ: $REFRAKT_PYTHON, or that of .venv at the
// top of the repository. A machine without it fails the test.
func Python(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("REFRAKT_PYTHON"); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for !exists(filepath.Join(dir, "go.mod")) {
		if dir == filepath.Dir(dir) {
			tb.Fatal("no go.mod above the tests")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, ".venv", "bin", "python")
	if !exists(path) {
		tb.Fatal("no Python with SAQ at " + path + ": run `make setup`")
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
