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

// newGRPC returns a server for Envoys, with TLS if there are files for it.
func newGRPC(files certs.Config, reg prometheus.Registerer, log *slog.Logger) (*grpc.Server, error) {
	alive := keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}
	options := []grpc.ServerOption{
		// Envoys ping; the default takes that for an attack and hangs up.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// A handshake, of TLS too, is over in that time or cut off.
		grpc.ConnectionTimeout(5 * time.Second),
	}
	if files.CertFile != "" {
		f, err := certs.Load(files, reg, log)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(f.Server())))
	}
	if files.ClientCAFile != "" {
		alive.MaxConnectionAge = maxClientAge
	}
	return grpc.NewServer(append(options, grpc.KeepaliveParams(alive))...), nil
}
