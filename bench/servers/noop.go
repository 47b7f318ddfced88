package servers

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what raw falls back to
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// OK is the shortest answer that lets a request pass.
func OK() *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &status.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}
}

// Noop is a kind of no-op.
type Noop string

// The kinds. A raw no-op does not read the request and has encoded the answer before. RawSet has the gate's settings of
// grpc-go and of Go's garbage collection, and the others have the defaults.
const (
	Standard Noop = "standard"
	Raw      Noop = "raw"
	RawSet   Noop = "raw-set"
)

// The gate's settings. Go's heap has 4 MB at least times a hundredth of the percentage, and the no-op keeps less than
// that. So it grows by nearly 24 MB until garbage is collected, as the gate's heap does.
const (
	streamWorkers = 64
	gcPercent     = 600
)

// StartNoop starts a gRPC service that answers every Check with the same answer at once.
func StartNoop(g *process.Group, name string, kind Noop, answer *authv3.CheckResponse) (*Server, error) {
	encoded, err := proto.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("encode the no-op's answer: %w", err)
	}
	return startSelf(g, name, nil, "noop", string(kind), base64.StdEncoding.EncodeToString(encoded))
}

var selfLine = regexp.MustCompile(`serving at (\S+), allocations at (\S+)`)

// startSelf runs this program as one of its own servers.
func startSelf(g *process.Group, name string, r *Redis, args ...string) (*Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p, err := g.Start(name, nil, append([]string{self, "serve"}, args...)...)
	if err != nil {
		return nil, err
	}
	said, err := p.Said(selfLine)
	if err != nil {
		return nil, err
	}
	return &Server{Process: p, Addr: said[1], Redis: r, Allocations: "http://" + said[2] + "/metrics"}, nil
}

// serveNoop is what runs in the process of StartNoop.
func serveNoop(kind Noop, encoded string) (*grpc.Server, error) {
	answer, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	switch kind {
	case Raw:
		return rawNoop(answer), nil
	case RawSet:
		debug.SetGCPercent(gcPercent)
		return rawNoop(answer, grpc.NumStreamWorkers(streamWorkers)), nil
	}
	ok := &authv3.CheckResponse{}
	if err := proto.Unmarshal(answer, ok); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, always{ok: ok})
	return s, nil
}

type always struct {
	authv3.UnimplementedAuthorizationServer

	ok *authv3.CheckResponse
}

func (a always) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return a.ok, nil
}

func rawNoop(answer []byte, options ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(options, grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}))...)
	reply := &rawMessage{mem.BufferSlice{mem.SliceBuffer(answer)}}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Check",
			Handler: func(_ any, _ context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return reply, read(&rawMessage{})
			},
		}},
	}, nil)
	return s
}

// rawMessage is a message that is not decoded.
type rawMessage struct{ data mem.BufferSlice }

// rawCodec passes raw messages through and leaves all others, such as those of health checks, to another codec.
type rawCodec struct{ other encoding.CodecV2 }

func (rawCodec) Name() string { return "proto" }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*rawMessage); ok {
		return m.data, nil
	}
	return c.other.Marshal(v)
}

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, ok := v.(*rawMessage); ok {
		return nil
	}
	return c.other.Unmarshal(data, v)
}

// addHealth says that the service is well, for Envoy's health checks.
func addHealth(s *grpc.Server) {
	h := health.NewServer()
	h.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(s, h)
}
