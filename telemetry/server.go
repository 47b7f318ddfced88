// Package telemetry serves the metrics and the health of the process on an HTTP port, and
// makes its logger.
package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Server serves the telemetry port.
type Server struct {
	cfg      Config
	metrics  prometheus.Gatherer
	ready    *Readiness
	degraded func() []string
	page     http.Handler
	log      *slog.Logger
}

// NewServer returns a server of the metrics in g and of the state in ready. degraded
// lists what does not work although the process is ready; /readyz shows it. page shows the
// metrics to people, at /.
func NewServer(cfg Config, g prometheus.Gatherer, ready *Readiness, degraded func() []string, page http.Handler, log *slog.Logger) *Server {
	return &Server{cfg: cfg, metrics: g, ready: ready, degraded: degraded, page: page, log: log}
}

// Run serves on l until ctx ends, then finishes the requests under way and returns nil. It
// closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve telemetry: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		err = errors.Join(err, srv.Close())
		s.log.Debug("telemetry requests cut off", "error", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve telemetry: %w", err)
	}
	return nil
}

// Handler returns the routes of the port.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+healthRoute, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET "+ReadyRoute, s.serveReady)
	if s.cfg.MetricsEnabled {
		h := promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{
			ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelError),
			MaxRequestsInFlight: 4,
		})
		page := s.page
		if s.cfg.BearerToken != "" {
			token := newToken(s.cfg.BearerToken, s.cfg.BearerTokenFile, s.log)
			h, page = token.guard(h), token.guardPage(page)
		}
		mux.Handle("GET "+s.cfg.MetricsRoute, h)
		mux.Handle("GET /{$}", page)
	}
	return mux
}

// ReadyAnswer is the body of an answer at [ReadyRoute]. Its status is 200 or 503.
type ReadyAnswer struct {
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons,omitempty"`  // why it is not, for example "starting: …"
	Degraded []string `json:"degraded,omitempty"` // what does not work as it should all the same
}

// serveReady answers 200 or 503, with the reasons in the body.
func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	body := ReadyAnswer{Degraded: s.degraded()}
	for _, reason := range s.ready.Reasons() {
		body.Reasons = append(body.Reasons, reason.String())
	}
	body.Ready = len(body.Reasons) == 0
	w.Header().Set("Content-Type", "application/json")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.Debug("readiness not written", "error", err)
	}
}
