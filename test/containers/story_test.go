//go:build containers

package containers

import (
	"os"
	"path/filepath"
	"testing"
)

// story is what the steps share.
type story struct {
	Folder
	env []string
}

func startEngineFor(t *testing.T, f Folder) *story {
	t.Helper()
	e, err := startEngine(t.Context(), string(f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.end)
	return &story{f, e.Env}
}

func play(t *testing.T, f Folder) {
	s := startEngineFor(t, f)
	_ = s
	_ = os.Args
	_ = filepath.Join
}
