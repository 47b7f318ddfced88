// Command bench measures refrakt-gate on this machine. `bench --help` says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/refrakt-hub/refrakt-gate/bench/report"
	"github.com/refrakt-hub/refrakt-gate/bench/servers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Stderr, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, progress io.Writer, args []string) error {
	if len(args) > 0 && args[0] == "serve" {
		return servers.Serve(ctx, out, args[1:])
	}
	o, err := parse(progress, args)
	if err != nil {
		return err
	}
	o.out, o.plan.Progress = out, progress
	b := &bench{options: o, ctx: ctx, report: report.New()}
	return b.run()
}
