package main

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/refrakt-hub/refrakt-gate/certs"
)

// maxClientAge is how long a connection lasts whose client has shown a certificate:
// so late does the end of that certificate, or of its CA, take effect. Envoy is
// told before, and loses no request.
const maxClientAge = 10 * time.Minute

const (
	// maxMessage is far more than the 60 KiB of headers that Envoy lets through unless told otherwise
	// (max_request_headers_kb). A larger question can't be answered by a verdict: Envoy's failure mode decides.
	maxMessage = 4 << 20
	// maxMetadata bounds what Envoy sends of its own with a question.
	maxMetadata = 16 << 10
)

// newGRPC returns a server for Envoys, with TLS if there are files for it.
func newGRPC(files certs.Config, maxChecks int, reg prometheus.Registerer, log *slog.Logger) (*grpc.Server, error) {
	options := []grpc.ServerOption{
		// Envoys ping; the default takes that for an attack and hangs up.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// A handshake, of TLS too, is over in that time or cut off.
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxMetadata),
		// Of one connection. Those beyond maxChecks get a verdict too, so there is room for as many again.
		grpc.MaxConcurrentStreams(2 * uint32(maxChecks)),
	}
	if files.CertFile != "" {
		f, err := certs.Load(files, reg, log)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(f.Server())))
	}
	return grpc.NewServer(append(options, grpc.KeepaliveParams(alive(files)))...), nil
}

// alive is how connections are looked after.
func alive(files certs.Config) keepalive.ServerParameters {
	p := keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}
	if files.ClientCAFile != "" {
		p.MaxConnectionAge = maxClientAge
	}
	return p
}
