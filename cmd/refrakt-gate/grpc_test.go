package main

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/certs"
)

// TestConnectionsOfClientsEnd: a client with a certificate has to show it again after a while.
func TestConnectionsOfClientsEnd(t *testing.T) {
	if age := alive(certs.Config{ClientCAFile: "ca.pem"}).MaxConnectionAge; age != maxClientAge {
		t.Errorf("with client certificates a connection may last %v, want %v", age, maxClientAge)
	}
	if age := alive(certs.Config{}).MaxConnectionAge; age != 0 {
		t.Errorf("without them it ends after %v", age)
	}
}

// TestCodecs: with both codecs the server answers Envoy and health checks. They are told
// apart by a path that is no UTF-8: only the codec wire reads it.
func TestCodecs(t *testing.T) {
	for codec, want := range map[codec]codes.Code{codecWire: codes.OK, codecStandard: codes.Internal} {
		t.Run(string(codec), func(t *testing.T) {
			cfg, mistakes := loadConfig(map[string]string{"GRPC_CODEC": string(codec)})
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			g, err := newGate(cfg, newRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(t.TempDir(), "gate.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error)
			go func() { served <- g.server.Serve(l) }()
			client, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				client.Close()
				g.server.Stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			}()

			http := &authv3.AttributeContext_HttpRequest{Method: "POST", Path: "/run?~"}
			req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: http}}}
			resp, err := authv3.NewAuthorizationClient(client).Check(t.Context(), req)
			if err != nil || resp.GetOkResponse() == nil || len(resp.GetOkResponse().GetResponseHeadersToAdd()) == 0 {
				t.Errorf("a Check: %v, %v", resp, err)
			}
			message, err := proto.Marshal(req)
			if err != nil {
				t.Fatal(err)
			}
			message = bytes.ReplaceAll(message, []byte("~"), []byte("\xff"))
			err = client.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, message, new(authv3.CheckResponse), grpc.ForceCodecV2(asItIs{encoding.GetCodecV2("proto")}))
			if status.Code(err) != want {
				t.Errorf("a path that is no UTF-8: %v, want %v", err, want)
			}
			health, err := healthpb.NewHealthClient(client).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
				t.Errorf("health: %v, %v", health, err)
			}
		})
	}
}

// asItIs sends the bytes that it is given.
type asItIs struct{ encoding.CodecV2 }

func (asItIs) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
