package chaos

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// fakeClock starts Redis anew with a clock that SetClock sets.
func (w *World) fakeClock(tb testing.TB) {
	tb.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		tb.Fatal("no C compiler is installed (Go's race detector needs one too): run `apt-get install gcc libc6-dev`")
	}
	dir := tb.TempDir()
	library := filepath.Join(dir, "clock.so")
	source := filepath.Join(e2e.Root(), "test", "chaos", "testdata", "clock.c")
	if out, err := exec.CommandContext(tb.Context(), compiler, "-shared", "-fPIC", "-O2", "-o", library, source).CombinedOutput(); err != nil {
		tb.Fatalf("compile %s: %v\n%s", source, err, out)
	}
	w.clock = filepath.Join(dir, "offset")
	w.SetClock(tb, 0)
	w.Redis.Env = []string{"LD_PRELOAD=" + library, "CLOCK_OFFSET_FILE=" + w.clock}
	w.Redis.Restart()
}

// SetClock sets Redis's clock off by so many whole seconds.
func (w *World) SetClock(tb testing.TB, by time.Duration) {
	tb.Helper()
	f, err := os.OpenFile(w.clock, os.O_CREATE|os.O_WRONLY, 0o600)
	must(tb, err)
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(by/time.Second))), 0) //nolint:gosec // negative ones wrap, as C reads them
	must(tb, err)
	must(tb, f.Close())
}
