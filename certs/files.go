// Package certs is TLS on a port whose certificate, key and client CAs are files
// that may change while it serves.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Files is the TLS of one port. The files are read for each handshake, which
// costs less than to watch them, and no handshake is older than what they hold.
type Files struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	good    *material   // the last that was whole
	server  *tls.Config // made of it
	failing bool
}

// Load reads the files and registers the port's metrics.
func Load(cfg Config, reg prometheus.Registerer, log *slog.Logger) (*Files, error) {
	good, errs := cfg.load(nil)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	f := &Files{cfg: cfg, log: log}
	f.use(good)
	f.register(reg)
	return f, nil
}

// Server returns the port's configuration, which follows the files.
func (f *Files) Server() *tls.Config {
	c := f.config()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		_, server := f.reread()
		return server, nil
	}
	return c
}

// leaf returns the certificate in force.
func (f *Files) leaf() *x509.Certificate {
	good, _ := f.reread()
	return good.cert.Leaf
}

// reread returns what is in force now. Files that can't be read, or do not fit
// together, leave the last good ones in force, all of them: they may be about to
// be replaced, one after the other.
func (f *Files) reread() (*material, *tls.Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, errs := f.cfg.load(f.good)
	err := errors.Join(errs...)
	switch {
	case err != nil && !f.failing:
		f.log.Warn("the TLS files are of no use; those read last stay in force", "port", f.cfg.Port, "error", err, "not_after", f.good.cert.Leaf.NotAfter)
	case err == nil && next != f.good:
		f.use(next)
		f.log.Info("the TLS files have changed", "port", f.cfg.Port, "not_after", next.cert.Leaf.NotAfter)
	}
	f.failing = err != nil
	return f.good, f.server
}

func (f *Files) use(m *material) {
	c := f.config()
	c.Certificates = []tls.Certificate{m.cert}
	if m.clientCAs != nil {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, m.clientCAs
	}
	if len(f.cfg.ClientNames) > 0 {
		c.VerifyConnection = f.cfg.verifyName
	}
	f.good, f.server = m, c
}

// config is what does not change. A resumed session would not look at the client's
// certificate again, and Envoy's connections last: there are no tickets.
func (f *Files) config() *tls.Config {
	return &tls.Config{MinVersion: f.cfg.MinVersion, NextProtos: f.cfg.Protocols, SessionTicketsDisabled: true}
}

// verifyName refuses a client whose certificate, which was verified, names nobody
// that may come.
func (c Config) verifyName(state tls.ConnectionState) error {
	leaf := state.PeerCertificates[0]
	names := slices.Clone(leaf.DNSNames)
	for _, uri := range leaf.URIs {
		names = append(names, uri.String())
	}
	for _, name := range names {
		if slices.Contains(c.ClientNames, name) {
			return nil
		}
	}
	return fmt.Errorf("the client's certificate is of %q, none of %s", names, c.setting(clientNames))
}
