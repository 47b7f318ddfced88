package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// redisTLS is what a URL says about TLS to Redis. The zero value: the server's
// certificate must be signed by a CA of the system and have the host's name.
type redisTLS struct {
	anyCert bool // the certificate is not looked at
	anyName bool // the certificate may have any name
	roots   *x509.CertPool
	certs   []tls.Certificate // to show to the server
}

// tlsParameters are redis-py's, and skip_verify of go-redis.
var tlsParameters = []string{
	"skip_verify", "ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile",
}

// takeTLS takes what is about TLS out of the parameters. Files are read once: go-redis
// keeps what is given to it.
func takeTLS(secure bool, query url.Values) (redisTLS, error) {
	p := map[string]string{}
	for _, name := range tlsParameters {
		if value := pythonValue(query, name); value != "" { // "" is, for redis-py, not there
			p[name] = value
		}
		query.Del(name)
	}
	t := redisTLS{}
	var err error
	if t.anyCert, err = skipsVerification(p); err != nil {
		return t, err
	}
	check, ok := true, true
	if value := p["ssl_check_hostname"]; value != "" {
		check, ok = pythonBool(value)
	}
	if !ok {
		return t, badValue("ssl_check_hostname")
	}
	t.anyName = !check
	if !secure {
		// Without TLS, who asks for no check gets none.
		if t.anyCert {
			delete(p, "ssl_cert_reqs")
		}
		if t.anyName {
			delete(p, "ssl_check_hostname")
		}
		for _, name := range tlsParameters {
			if p[name] != "" {
				return t, fmt.Errorf("the parameter %s is for TLS, which takes rediss://", name)
			}
		}
		return redisTLS{}, nil
	}
	if t.roots, err = caPool(p["ssl_ca_certs"], p["ssl_ca_data"]); err != nil {
		return t, err
	}
	t.certs, err = clientCertificate(p["ssl_certfile"], p["ssl_keyfile"])
	return t, err
}

// skipsVerification reads the two parameters that say so. In a client, Python's
// optional means required.
func skipsVerification(p map[string]string) (bool, error) {
	skip, reqs := p["skip_verify"], p["ssl_cert_reqs"]
	if skip != "" && reqs != "" {
		return false, errors.New("the parameters skip_verify and ssl_cert_reqs say the same: which one counts?")
	}
	switch skip {
	case "true", "1":
		return true, nil
	case "false", "0", "":
	default:
		return false, badValue("skip_verify")
	}
	switch reqs {
	case "none":
		return true, nil
	case "optional", "required", "":
		return false, nil
	default:
		return false, badValue("ssl_cert_reqs")
	}
}

func pythonBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "1", "t", "true", "y", "yes":
		return true, true
	case "0", "f", "false", "n", "no":
		return false, true
	default:
		return false, false
	}
}

// caPool is the system's CAs and those given, as Python has it; nil: the system's.
func caPool(file, data string) (*x509.CertPool, error) {
	if file == "" && data == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil { // a machine without any
		pool = x509.NewCertPool()
	}
	if data != "" && !pool.AppendCertsFromPEM([]byte(data)) {
		return nil, errors.New("the parameter ssl_ca_data holds no certificate")
	}
	if file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, unreadable("ssl_ca_certs", err)
		}
		if !pool.AppendCertsFromPEM(content) {
			return nil, errors.New("the file of the parameter ssl_ca_certs holds no certificate")
		}
	}
	return pool, nil
}

func clientCertificate(certFile, keyFile string) ([]tls.Certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return nil, nil
	case certFile == "":
		return nil, errors.New("the parameter ssl_keyfile needs ssl_certfile")
	case keyFile == "":
		keyFile = certFile // as Python has it
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, unreadable("ssl_certfile", err)
	}
	return []tls.Certificate{cert}, nil
}

// unreadable does not quote the file's name, which stands in the URL.
func unreadable(parameter string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fmt.Errorf("read the file of the parameter %s: %w", parameter, err)
}

// apply puts t into the client's configuration, which is nil without TLS.
func (t redisTLS) apply(cfg *tls.Config) {
	if cfg == nil {
		return
	}
	cfg.MinVersion = tls.VersionTLS12
	cfg.RootCAs, cfg.Certificates = t.roots, t.certs
	cfg.InsecureSkipVerify = t.anyCert || t.anyName //nolint:gosec // the operator asks for that
	if t.anyName && !t.anyCert {
		cfg.VerifyConnection = t.verifyChain
	}
}

// verifyChain checks all but the name.
func (t redisTLS) verifyChain(state tls.ConnectionState) error {
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: t.roots, Intermediates: between})
	return err
}
