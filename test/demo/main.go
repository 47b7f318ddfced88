// Command demo is what `make run` and `make demo` start: the real parts of the tests, on their usual ports or for a
// story.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func main() {
	stories := map[string]func(*program){"run": runAll, "demo": tellStory}
	if len(os.Args) != 2 || stories[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: demo run|demo")
		os.Exit(2)
	}
	os.Exit(run(stories[os.Args[1]]))
}

// run returns the exit code: 0 also when the user ends it.
func run(story func(*program)) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	e2e.Race = false
	defer e2e.RemoveBinary()
	err := play(ctx, os.Stdout, story)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "\nFAILED:", err)
		return 1
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stdout, "\nstopped")
	}
	return 0
}
