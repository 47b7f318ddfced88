package servers

import (
	"context"
	"fmt"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
)

// StartRedisRate runs what is quickly written with go-redis/redis_rate: a Check that asks it twice, for the address and
// for the user of the caller. It has none of the gate's other duties.
func StartRedisRate(g *process.Group, name string) (*Server, error) {
	r, err := StartRedis(g, name+"-redis")
	if err != nil {
		return nil, err
	}
	return startSelf(g, name, r, "redis_rate", r.Addr)
}

// redisRate is what runs in the process of StartRedisRate.
type redisRate struct {
	authv3.UnimplementedAuthorizationServer

	limiter *redis_rate.Limiter
}

func serveRedisRate(addr string) *grpc.Server {
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, redisRate{limiter: redis_rate.NewLimiter(redis.NewClient(&redis.Options{Addr: addr}))})
	return s
}

// Check lets a caller pass who is within both limits.
func (s redisRate) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	var address, user string
	for _, h := range r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		switch h.GetKey() {
		case "x-forwarded-for":
			address, _, _ = strings.Cut(string(h.GetRawValue()), ",")
		case "x-user-id":
			user = string(h.GetRawValue())
		}
	}
	for _, key := range []string{"address:" + address, "user:" + user} {
		result, err := s.limiter.Allow(ctx, key, redis_rate.PerMinute(30))
		if err != nil {
			return nil, fmt.Errorf("take a token: %w", err)
		}
		if result.Allowed == 0 {
			return tooMany(), nil
		}
	}
	return OK(), nil
}

func tooMany() *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code.Code_PERMISSION_DENIED)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
		}},
	}
}
