// Package certs serves TLS on a port. Certificate, key and client CAs are files that can
// change while the port serves.
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

	"github.com/refrakt-hub/refrakt-gate/internal/condition"
)

// Files serves TLS on one port. It reads the files for each handshake: that costs less
// than to watch them, and every handshake uses what they hold at that moment.
type Files struct {
	cfg Config
	log *slog.Logger

	usable *condition.Condition

	mu     sync.Mutex
	good   *material   // the newest that could be used
	server *tls.Config // made from good
}

// Load reads the files and registers the metrics of the port.
func Load(cfg Config, reg prometheus.Registerer, log *slog.Logger) (*Files, error) {
	good, errs := cfg.load(nil)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	log = log.With("port", cfg.Port)
	f := &Files{
		cfg: cfg, log: log,
		usable: condition.New(log, "the TLS files cannot be used; those read before stay in force", "the TLS files can be used again"),
	}
	f.use(good)
	f.register(reg)
	return f, nil
}

// Server returns the TLS configuration of the port. It follows the files.
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

// reread reads the files and returns what is in force. If one of them can't be read, or
// if they don't fit together, all files that were read before stay in force: somebody may
// be about to replace the files one after the other.
func (f *Files) reread() (*material, *tls.Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, errs := f.cfg.load(f.good)
	err := errors.Join(errs...)
	if err != nil {
		f.usable.Fail(err, "not_after", f.good.cert.Leaf.NotAfter)
		return f.good, f.server
	}
	f.usable.Succeed()
	if next != f.good {
		f.use(next)
		f.log.Info("the TLS files have changed", "not_after", next.cert.Leaf.NotAfter)
	}
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

// config returns the part of the configuration that does not change. There are no session
// tickets: a resumed session does not verify the certificate of the client again.
func (f *Files) config() *tls.Config {
	return &tls.Config{MinVersion: f.cfg.MinVersion, NextProtos: f.cfg.Protocols, SessionTicketsDisabled: true}
}

// verifyName refuses a client whose certificate has none of ClientNames. The certificate
// was verified before.
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
	return fmt.Errorf("the client's certificate has the names %q, none of %s", names, c.setting(clientNames))
}
