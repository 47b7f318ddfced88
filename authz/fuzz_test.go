package authz

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// byKeys is a limiter whose answer depends on the caller alone: it refuses callers with a
// user, and is away for half of the others.
type byKeys struct{}

func (byKeys) Take(_ context.Context, req quota.Request) (quota.Result, error) {
	b := req.Buckets[len(req.Buckets)-1]
	switch {
	case len(req.Buckets) > 1:
		return quota.Result{Limit: b.Limit, Debt: b.Limit.Span()}, nil
	case b.Key[len(b.Key)-1]%2 == 0:
		return quota.Result{}, quota.ErrUnavailable
	default:
		return quota.Result{Limit: b.Limit, Taken: true, Debt: b.Limit.Interval}, nil
	}
}

func (byKeys) Refund(context.Context, quota.Result, []quota.Bucket) error {
	return errors.New("unused")
}

// FuzzCheck: whatever CheckRequest comes, the answer is a verdict that can be sent, and
// nothing panics. Both codecs give the same answer, the one by the environment, the other
// by the same policies as a file, unless the generated code does not take the CheckRequest.
func FuzzCheck(f *testing.F) {
	for _, path := range []string{"/run", "/assistant?user_id=ann", "/ping", "/r%75n%0a", ""} {
		for _, raw := range []bool{true, false} {
			f.Add(encode(f, checkRequest("10.0.0.1", path, raw, line{"x-forwarded-for", "203.0.113.9, 10.0.0.2"}, line{"x-user-id", "ann"}, line{"x-ratelimit-tier", "premium"})))
		}
	}
	cfg := config(f)
	cfg.UserSources, cfg.JWTPayload, cfg.JWTUserClaim, cfg.JWTTierClaim = UserSources{UserJWT, UserHeader, UserQuery}, "p", "sub", "plan"
	servers := make(map[string]*Server)
	for codec := range codecs {
		servers[codec] = serve(cfg, byKeys{}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	}
	servers["standard"].Use(throughFile(f, cfg.Environment, nil))
	f.Fuzz(func(t *testing.T, request []byte) {
		answer, err := codecs["wire"](t.Context(), servers["wire"], request)
		protobuf := proto.Unmarshal(request, new(authv3.CheckRequest)) == nil
		if err != nil {
			if protobuf {
				t.Fatalf("an error: %v", err)
			}
			return
		}
		resp := verdictOf(t, answer)
		if !protobuf {
			return
		}
		answer, err = codecs["standard"](t.Context(), servers["standard"], request)
		if err != nil {
			t.Fatalf("an error by the generated code alone: %v", err)
		}
		if standard := verdictOf(t, answer); !proto.Equal(resp, standard) {
			t.Fatalf("on the wire %v\nelse        %v", resp, standard)
		}
	})
}

// verdictOf reads an answer and checks that Envoy can't mistake it.
func verdictOf(t *testing.T, answer []byte) *authv3.CheckResponse {
	t.Helper()
	resp := decode(t, func() ([]byte, error) { return answer, nil })
	if resp.GetStatus() == nil {
		t.Fatal("no status: Envoy takes that for leave to pass")
	}
	if denied := resp.GetDeniedResponse() != nil; denied != (resp.GetStatus().GetCode() == int32(codes.PermissionDenied)) {
		t.Fatalf("denied %v with code %v", denied, resp.GetStatus())
	}
	if resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue() == string(ReasonInternal) {
		t.Fatal("a panic")
	}
	return resp
}
