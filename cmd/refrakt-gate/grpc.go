package main

import (
	"log/slog"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/certs"
	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// maxClientAge is how long a connection lasts if its client has shown a certificate. The
// end of that certificate, or of its CA, takes effect so much later at most. gRPC
// announces the end of a connection, so Envoy loses no request.
const maxClientAge = 10 * time.Minute

const (
	// maxMessage is the size of the largest CheckRequest. By default Envoy lets 60 KiB of
	// headers through (max_request_headers_kb), which is far less. A larger CheckRequest is
	// a gRPC error, so Envoy's failure mode decides.
	maxMessage = 4 << 20
	// streamWorkers is how many goroutines wait for Checks.
	streamWorkers = 64
	// maxMetadata bounds the metadata that Envoy sends with a CheckRequest.
	maxMetadata = 16 << 10
)

// codec is how Checks are read and written.
type codec string

const (
	// codecWire reads a Check from the wire.
	codecWire codec = "wire"
	// codecStandard has the generated code read it.
	codecStandard codec = "standard"
)

// register adds the service that answers Envoy.
func (c codec) register(s *grpc.Server, checks *authz.Server) {
	if c == codecWire {
		envoy.Register(s, checks)
	} else {
		authv3.RegisterAuthorizationServer(s, checks)
	}
}

// newGRPC returns a server for Envoy. It speaks TLS if there are files for that.
func newGRPC(files certs.Config, c codec, maxChecks int, reg prometheus.Registerer, log *slog.Logger) (*grpc.Server, error) {
	options := []grpc.ServerOption{
		// Envoy pings. By default gRPC takes pings for an attack and closes the connection.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// A handshake that takes longer is cut off, also one of TLS.
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxMetadata),
		// A goroutine that is used again has the stack that a Check needs; a new one grows it
		// step by step, an eighth of the CPU of a Check. Above this number there are new ones.
		grpc.NumStreamWorkers(streamWorkers),
		// This is for one connection. Requests above maxChecks get a verdict too, so there is
		// room for as many again.
		grpc.MaxConcurrentStreams(2 * uint32(maxChecks)),
	}
	if c == codecWire {
		options = append(options, grpc.ForceServerCodecV2(envoy.NewCodec()))
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

// alive returns how the server finds dead connections, and how long connections last.
func alive(files certs.Config) keepalive.ServerParameters {
	p := keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}
	if files.ClientCAFile != "" {
		p.MaxConnectionAge = maxClientAge
	}
	return p
}
