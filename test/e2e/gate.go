package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
)

// Race says that gates are built with the race detector. A package that measures sets it to false in its TestMain.
var Race = true

// binary is the gate, built once for all tests of a package.
var binary struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Main runs a package's tests and removes what they built. Call it from TestMain.
func Main(m *testing.M) int {
	defer RemoveBinary()
	return m.Run()
}

// RemoveBinary removes what GateBinary built.
func RemoveBinary() { _ = os.RemoveAll(binary.dir) }

// GateBinary is the path of the gate's binary; the package's TestMain must call Main.
func GateBinary(tb testing.TB) string {
	tb.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "gate-bin"); binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "refrakt-gate")
		binary.err = build(binary.path)
	})
	if binary.err != nil {
		tb.Fatal(binary.err)
	}
	return binary.path
}

// build builds the gate. The packages of a run share what is in bin/test: go links it for the first one, which takes
// seconds, and finds it up to date for the others.
func build(path string) error {
	shared := filepath.Join(Root(), "bin", "test", "refrakt-gate-race-"+strconv.FormatBool(Race))
	if err := os.MkdirAll(filepath.Dir(shared), 0o755); err != nil {
		return fmt.Errorf("create the folder of the gate: %w", err)
	}
	lock, err := os.OpenFile(shared+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock of the gate: %w", err)
	}
	defer lock.Close() // which ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("wait for others that build the gate: %w", err)
	}
	build := exec.CommandContext(context.Background(), "go", "build", "-race="+strconv.FormatBool(Race), "-o", shared, "./cmd/refrakt-gate")
	build.Dir = Root()
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the gate: %w\n%s", err, out)
	}
	text, err := os.ReadFile(shared)
	if err != nil {
		return fmt.Errorf("copy the gate: %w", err)
	}
	return os.WriteFile(path, text, 0o700) // another run may replace the shared one
}

// Gate is one running gate.
type Gate struct {
	*proctest.Process

	GRPC      string // "127.0.0.1:9001" or "unix:///path"
	Telemetry string // "127.0.0.1:9464"
}

// raceExit is the exit code of a gate in which the race detector found something.
const raceExit = 66

var (
	telemetryLine = regexp.MustCompile(`"msg":"telemetry listening".*"addr":"([^"]+)"`)
	servingLine   = regexp.MustCompile(`"msg":"serving".*"grpc":"([^"]+)"`)
)

// StartGate starts a gate with these settings only and waits until it serves.
func StartGate(tb testing.TB, settings map[string]string) *Gate {
	tb.Helper()
	g := LaunchGate(tb, settings)
	g.GRPC = g.WaitLog(tb, servingLine)[1]
	return g
}

// LaunchGate starts a gate and waits for its telemetry port only. GRPC_CODEC of the tests' environment is that of all
// gates that have no other.
func LaunchGate(tb testing.TB, settings map[string]string) *Gate {
	tb.Helper()
	env := map[string]string{
		"GRPC_ADDR": "127.0.0.1:0", "TELEMETRY_ADDR": "127.0.0.1:0", "LOG_FORMAT": "json", "SHUTDOWN_DRAIN": "0s",
		"GORACE": fmt.Sprintf("exitcode=%d", raceExit), "GRPC_CODEC": os.Getenv("GRPC_CODEC"),
	}
	maps.Copy(env, settings)
	g := &Gate{}
	tb.Cleanup(func() { // runs after the process was stopped
		if g.Process != nil && g.ExitCode() == raceExit {
			tb.Errorf("the race detector spoke up in the gate:\n%s", g.Log())
		}
	})
	g.Process = proctest.Start(tb, proctest.Command{Name: "gate", Path: GateBinary(tb), Env: environ(env)})
	g.Telemetry = g.WaitLog(tb, telemetryLine)[1]
	return g
}

// Get asks the telemetry port.
func (g *Gate) Get(tb testing.TB, path string, headers ...string) Response {
	tb.Helper()
	return do(tb, http.MethodGet, "http://"+g.Telemetry+path, nil, headers)
}

// Config is the output of `refrakt-gate config` with these settings.
func Config(tb testing.TB, settings map[string]string) string {
	tb.Helper()
	code, out := RunGate(tb, settings, "config")
	if code != 0 {
		tb.Fatalf("refrakt-gate config: exit code %d\n%s", code, out)
	}
	return out
}

// RunGate runs a command of the gate with these settings only, and returns its exit code and its output.
func RunGate(tb testing.TB, settings map[string]string, args ...string) (code int, out string) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), GateBinary(tb), args...)
	cmd.Env = environ(settings)
	text, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		tb.Fatalf("refrakt-gate %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func environ(m map[string]string) []string {
	env := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		env = append(env, name+"="+m[name])
	}
	return env
}
