package authz

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/quota"
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

// ask has a request answered by a codec. Then it overwrites the request, as gRPC does: who
// keeps text of a request will find other text there.
func ask(ctx context.Context, tb testing.TB, codec string, s *Server, req *authv3.CheckRequest) *authv3.CheckResponse {
	tb.Helper()
	request := encode(tb, req)
	resp := decode(tb, func() ([]byte, error) { return codecs[codec](ctx, s, request) })
	for i := range request {
		request[i] = 'X'
	}
	return resp
}

// TestNothingIsKept: metrics, answers and templates of later requests hold no text of an
// earlier one, which is overwritten.
func TestNothingIsKept(t *testing.T) {
	cfg := config(t)
	cfg.UserSources = UserSources{UserJWT, UserHeader, UserQuery}
	reg := prometheus.NewRegistry()
	s := serve(cfg, quota.NewMemory(), nil, reg, slog.New(slog.DiscardHandler))
	for range 3 {
		for _, policy := range []string{"run", "assistant", "rum", ""} {
			for _, path := range []string{"/run?user_id=ann", "/assistant", "/ping", "//run"} {
				for _, method := range []string{"POST", "OPTIONS"} {
					req := checkRequest("10.0.0.1", path, true, line{"x-user-id", "ann"}, line{"cf-connecting-ip", "203.0.113.9"},
						line{"x-ratelimit-tier", "premium"}, line{"origin", "x"}, line{"access-control-request-method", "POST"})
					req.Attributes.Request.Http.Method = method
					if policy != "" {
						req.Attributes.ContextExtensions = map[string]string{"policy": policy}
					}
					resp := ask(t.Context(), t, "wire", s, req)
					if strings.Contains(resp.String(), "XX") {
						t.Fatalf("%s %s, policy %q: %v", method, path, policy, resp)
					}
				}
			}
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.Contains(f.String(), "XX") {
			t.Errorf("text of a request in %v", f)
		}
	}
}
