package servers

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"time"

	"google.golang.org/grpc"
)

// Serve runs one of this program's own servers: what startSelf starts. It writes the addresses to out.
func Serve(ctx context.Context, out io.Writer, args []string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	debug, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go func() {
		web := &http.Server{Handler: http.HandlerFunc(allocations), ReadHeaderTimeout: time.Second}
		_ = web.Serve(debug) // the process ends with s
	}()
	serve, err := ownServer(args)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "serving at %s, allocations at %s\n", l.Addr(), debug.Addr())
	return serve(l)
}

func ownServer(args []string) (serve func(net.Listener) error, err error) {
	var s *grpc.Server
	switch {
	case len(args) == 1 && args[0] == "web":
		return serveWeb, nil
	case len(args) == 3 && args[0] == "noop":
		s, err = serveNoop(Noop(args[1]), args[2])
	case len(args) == 2 && args[0] == "redis_rate":
		s = serveRedisRate(args[1])
	default:
		err = fmt.Errorf("no server is called %q", args)
	}
	if err != nil {
		return nil, err
	}
	addHealth(s)
	return s.Serve, nil
}

// allocations writes the two series of a Go program's metrics that the benchmark reads.
func allocations(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(w, "go_memstats_mallocs_total %d\ngo_gc_duration_seconds_count %d\n", m.Mallocs, m.NumGC)
}
