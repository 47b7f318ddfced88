package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
)

// API is the example API.
type API struct {
	*proctest.Process

	Addr string
}

var uvicornLine = regexp.MustCompile(`Uvicorn running on http://(\S+)`)

// StartAPI starts the example API on a port of the kernel's choice; an empty queueURL leaves it without a queue.
func StartAPI(tb testing.TB, queueURL string) *API {
	tb.Helper()
	return StartAPIOn(tb, "0", queueURL)
}

// StartAPIOn does the same on this port.
func StartAPIOn(tb testing.TB, port, queueURL string) *API {
	tb.Helper()
	return startAPI(tb, queueURL, nil, "--port", port, "app:app", "--app-dir", exampleDir())
}

// StartWideAPI starts the example API with a route for all that is below /run, and without a queue.
func StartWideAPI(tb testing.TB) *API {
	tb.Helper()
	return startAPI(tb, "", nil, "--port", "0", "below:app", "--app-dir", filepath.Join(Root(), "test/e2e/testdata"))
}

func startAPI(tb testing.TB, queueURL string, env map[string]string, args ...string) *API {
	tb.Helper()
	a := &API{}
	a.Process = proctest.Start(tb, proctest.Command{
		Name: "api", Path: Tool(tb, "uvicorn"),
		// uvicorn ends idle connections after 5 s, at times just as Envoy sends the next request by one: a 503 that is
		// not the gate's.
		Args: append(args, "--timeout-keep-alive", "300"),
		Dir:  exampleDir(), Env: pythonEnv(queueURL, env),
	})
	a.Addr = a.WaitLog(tb, uvicornLine)[1]
	return a
}

// StartWorker starts a SAQ worker that runs this many jobs at once. It returns when the worker is registered.
func StartWorker(tb testing.TB, queueURL string, client redis.Cmdable, concurrency int) *proctest.Process {
	tb.Helper()
	// A worker that starts sweeps, and so aborts a job taken from the list but not yet marked active. SAQ's own
	// lock holds it off.
	if err := client.Set(tb.Context(), "saq:default:sweep", 1, time.Hour).Err(); err != nil {
		tb.Fatalf("hold off the sweep: %v", err)
	}
	env := pythonEnv(queueURL, map[string]string{"WORKER_CONCURRENCY": strconv.Itoa(concurrency)})
	p := proctest.Start(tb, proctest.Command{
		Name: "worker", Path: Tool(tb, "saq"), Args: []string{"worker.settings", "--verbose"}, Dir: exampleDir(), Env: env,
	})
	p.WaitLog(tb, regexp.MustCompile(`Worker starting`))
	return p
}

// Jobs says what to enqueue through SAQ, past the gate.
type Jobs struct {
	Count   int
	Seconds float64       // how long each will run
	Age     time.Duration // how long ago they were enqueued
	Source  string        // kwargs.source; "" is "test"
}

// Enqueue enqueues jobs by SAQ itself.
func Enqueue(tb testing.TB, queueURL string, j Jobs) {
	tb.Helper()
	source := j.Source
	if source == "" {
		source = "test"
	}
	cmd := exec.CommandContext(tb.Context(), Tool(tb, "python"), filepath.Join(Root(), "test/e2e/testdata/enqueue.py"),
		strconv.Itoa(j.Count), strconv.FormatFloat(j.Seconds, 'g', -1, 64),
		strconv.FormatFloat(j.Age.Seconds(), 'g', -1, 64), source)
	cmd.Dir, cmd.Env = exampleDir(), pythonEnv(queueURL, nil)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("enqueue jobs: %v\n%s", err, out)
	}
}

func exampleDir() string { return filepath.Join(Root(), "examples", "api") }

func pythonEnv(queueURL string, more map[string]string) []string {
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": exampleDir(),
	}
	if queueURL != "" {
		env["QUEUE_URL"] = queueURL
	}
	maps.Copy(env, more)
	return environ(env)
}
