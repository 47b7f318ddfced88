package envoy

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// echo answers with what it read of the request.
type echo struct{}

func said(r Request) *Reply {
	user, lines := r.Header("x-user-id")
	return &Reply{Status: 429, Body: fmt.Sprint(r.Method, " ", r.Path, " ", r.Policy, " ", r.Peer.Addr, " ", user, " ", lines, " ", r.Claim("p", "sub"))}
}

func (echo) Answer(_ context.Context, c *Call) (*Answer, error) {
	r, err := c.Read()
	if err != nil {
		return nil, err
	}
	return said(r).Answer(), nil
}

// serve starts a server with the codec and the service, and returns a client.
func serve(t *testing.T, c Checker, options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.ForceServerCodecV2(NewCodec()))...)
	Register(s, c)
	healthpb.RegisterHealthServer(s, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	client, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return client
}

// TestCallsAreApart: calls are used again, and none shows text of another.
func TestCallsAreApart(t *testing.T) {
	client := authv3.NewAuthorizationClient(serve(t, echo{}))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				req := full(i%2 == 0)
				http := req.Attributes.Request.Http
				// Some are large: their buffers come from gRPC's pool, and in many frames.
				http.Path = fmt.Sprintf("/run/%d/%d/%s", i, j, strings.Repeat("x", 1<<(j%17)))
				switch {
				case j%5 == 0: // less than the call before
					req = &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Path: http.Path}}}}
				case i%2 == 0:
					http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: "x-user-id", Value: fmt.Sprint(i, j)})
				default:
					http.Headers["x-user-id"] = fmt.Sprint(i, j)
				}
				resp, err := client.Check(t.Context(), req)
				if err != nil {
					t.Error(err)
					return
				}
				if got, want := resp.GetDeniedResponse().GetBody(), said(Parse(req)).Body; got != want {
					t.Errorf("got  %.200s\nwant %.200s", got, want)
				}
			}
		})
	}
	all.Wait()
}

// TestOtherMessages: all but Checks is read and written by the generated code.
func TestOtherMessages(t *testing.T) {
	client := serve(t, echo{})
	resp, err := healthpb.NewHealthClient(client).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", resp, err)
	}
}

// rawBytes sends what it is given.
type rawBytes struct{ Codec }

func (rawBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// TestMalformedCall: what is no protobuf is an error of the same kind as by the generated
// code, and the next call is not affected.
func TestMalformedCall(t *testing.T) {
	client := serve(t, echo{})
	for i, wire := range [][]byte{{0x0a}, {0x07}, marshal(t, full(true))[:40], {}} {
		resp := new(authv3.CheckResponse)
		err := client.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, wire, resp, grpc.ForceCodecV2(rawBytes{NewCodec()}))
		if want := codes.Internal; i == 3 {
			if err != nil {
				t.Errorf("an empty CheckRequest: %v", err)
			}
		} else if status.Code(err) != want {
			t.Errorf("%x: %v, want %v", wire, err, want)
		}
	}
}

// TestTwoRequests: a second message in a call is an error, as with the generated code.
func TestTwoRequests(t *testing.T) {
	client := serve(t, echo{})
	stream, err := client.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, authv3.Authorization_Check_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.SendMsg(full(true)); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(authv3.CheckResponse)); status.Code(err) != codes.Internal {
		t.Errorf("%v, want Internal", err)
	}
}

// TestInterceptor: an interceptor of the server sees Checks.
func TestInterceptor(t *testing.T) {
	var seen string
	client := serve(t, echo{}, grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		seen = info.FullMethod
		return handle(ctx, req)
	}))
	if _, err := authv3.NewAuthorizationClient(client).Check(t.Context(), full(true)); err != nil || seen != authv3.Authorization_Check_FullMethodName {
		t.Errorf("saw %q, %v", seen, err)
	}
}
