package load

import (
	rlcommon "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// RateLimit asks envoyproxy/ratelimit about an address and a user.
func RateLimit(domain string, callers int) *Traffic {
	descriptor := func(key, value string) *rlcommon.RateLimitDescriptor {
		return &rlcommon.RateLimitDescriptor{Entries: []*rlcommon.RateLimitDescriptor_Entry{{Key: key, Value: value}}}
	}
	return grpcTraffic("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", &rlv3.RateLimitRequest{
		Domain:      domain,
		Descriptors: []*rlcommon.RateLimitDescriptor{descriptor("ip", anyAddress), descriptor("user", anyUser)},
	}, judgeRateLimit, callers)
}
