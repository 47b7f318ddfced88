package authz

import (
	"log/slog"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/refrakt-hub/refrakt-gate/quota"
)

// FuzzCheck: whatever CheckRequest comes, the answer is a verdict that can be sent, and nothing panics.
func FuzzCheck(f *testing.F) {
	for _, path := range []string{"/run", "/assistant?user_id=ann", "/ping", "/r%75n%0a", ""} {
		for _, raw := range []bool{true, false} {
			seed, err := proto.Marshal(checkRequest("10.0.0.1", path, raw, line{"x-forwarded-for", "203.0.113.9, 10.0.0.2"}, line{"x-user-id", "ann"}, line{"x-ratelimit-tier", "premium"}))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(seed)
		}
	}
	cfg := config(f)
	cfg.UserSources, cfg.JWTPayload, cfg.JWTUserClaim, cfg.JWTTierClaim = UserSources{UserJWT, UserHeader, UserQuery}, "p", "sub", "plan"
	s := New(cfg, Limits{tiers, tiers}, quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, wire []byte) {
		req := new(authv3.CheckRequest)
		if proto.Unmarshal(wire, req) != nil {
			return
		}
		resp, err := s.Check(t.Context(), req)
		if err != nil {
			t.Fatalf("an error: %v", err)
		}
		if resp.GetStatus() == nil {
			t.Fatal("no status: Envoy takes that for leave to pass")
		}
		if denied := resp.GetDeniedResponse() != nil; denied != (resp.GetStatus().GetCode() == int32(codes.PermissionDenied)) {
			t.Fatalf("denied %v with code %v", denied, resp.GetStatus())
		}
		if _, err := proto.Marshal(resp); err != nil {
			t.Fatalf("an answer that can't be sent: %v", err)
		}
		if resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue() == string(ReasonInternal) {
			t.Fatal("a panic")
		}
	})
}
