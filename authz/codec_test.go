package authz

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

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
		return data.Materialize(), err
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

// byCodec runs a test once for each codec.
func byCodec(t *testing.T, name string, test func(t *testing.T, codec string)) {
	t.Helper()
	for codec := range codecs {
		t.Run(name+"/"+codec, func(t *testing.T) { test(t, codec) })
	}
}

// inBubbleByCodec runs a test once for each codec, each in a bubble of synctest.
func inBubbleByCodec(t *testing.T, name string, test func(t *testing.T, codec string)) {
	t.Helper()
	byCodec(t, name, func(t *testing.T, codec string) {
		synctest.Test(t, func(t *testing.T) { test(t, codec) })
	})
}

// encode is a CheckRequest on the wire.
func encode(tb testing.TB, req *authv3.CheckRequest) []byte {
	tb.Helper()
	request, err := proto.Marshal(req)
	if err != nil {
		tb.Fatal(err)
	}
	return request
}

// decode reads the answer to a Check, which must be one.
func decode(tb testing.TB, check func() ([]byte, error)) *authv3.CheckResponse {
	tb.Helper()
	answer, err := check()
	if err != nil {
		tb.Fatalf("Check: %v", err)
	}
	resp := new(authv3.CheckResponse)
	if err := proto.Unmarshal(answer, resp); err != nil {
		tb.Fatalf("the answer is no CheckResponse: %v", err)
	}
	return resp
}

// ask has a request answered by a codec.
func ask(ctx context.Context, tb testing.TB, codec string, s *Server, req *authv3.CheckRequest) *authv3.CheckResponse {
	tb.Helper()
	request := encode(tb, req)
	return decode(tb, func() ([]byte, error) { return codecs[codec](ctx, s, request) })
}
