package servers

import (
	"net"
	"net/http"
	"time"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// StartWeb starts an HTTP server that answers every request at once.
func StartWeb(g *process.Group, name string) (*Server, error) { return startSelf(g, name, nil, "web") }

// serveWeb is what runs in the process of StartWeb.
func serveWeb(l net.Listener) error {
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok")) // a client that is gone needs no answer
	})}
	return s.Serve(l)
}
