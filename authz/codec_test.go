package authz

import (
	"context"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// codecs are the two ways for a CheckRequest to come and for its answer to go, by the
// value of GRPC_CODEC. Each does what the server of gRPC does.
var codecs = map[string]func(context.Context, *Server, []byte) ([]byte, error){
	"wire": func(ctx context.Context, s *Server, request []byte) ([]byte, error) {
		call := calls.Get().(*envoy.Call)
		defer calls.Put(call)
		if err := wire.Unmarshal(mem.BufferSlice{mem.SliceBuffer(request)}, call); err != nil {
			return nil, err
		}
		answer, err := s.Answer(ctx, call)
		if err != nil {
			return nil, err
		}
		data, err := wire.Marshal(answer)
		return data[0].ReadOnlyData(), err
	},
	"standard": func(ctx context.Context, s *Server, request []byte) ([]byte, error) {
		req := new(authv3.CheckRequest)
		if err := proto.Unmarshal(request, req); err != nil {
			return nil, err
		}
		resp, err := s.Check(ctx, req)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(resp)
	},
}

var (
	wire  = envoy.NewCodec()
	calls = sync.Pool{New: func() any { return new(envoy.Call) }}
)

// encode is the request on the wire. A tilde becomes a byte that is no UTF-8; the generated
// code would not write that.
func encode(tb testing.TB, req *authv3.CheckRequest) []byte {
	tb.Helper()
	request, err := proto.Marshal(req)
	if err != nil {
		tb.Fatal(err)
	}
	return request
}

// ask has the request answered by the codec.
func ask(ctx context.Context, tb testing.TB, codec string, s *Server, req *authv3.CheckRequest) *authv3.CheckResponse {
	tb.Helper()
	answer, err := codecs[codec](ctx, s, encode(tb, req))
	if err != nil {
		tb.Fatalf("Check: %v", err)
	}
	resp := new(authv3.CheckResponse)
	if err := proto.Unmarshal(answer, resp); err != nil {
		tb.Fatalf("the answer is no CheckResponse: %v", err)
	}
	return resp
}
