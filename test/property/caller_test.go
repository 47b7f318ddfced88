package property_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// recorder is a limiter that notes whose buckets are asked, and how large they are.
type recorder struct {
	keys  []string
	limit quota.Limit
}

func (r *recorder) Take(_ context.Context, req quota.Request) (quota.Result, error) {
	r.keys, r.limit = nil, req.Buckets[0].Limit
	for _, b := range req.Buckets {
		r.keys = append(r.keys, b.Key)
	}
	return quota.Result{Limit: r.limit, Taken: true, Debt: r.limit.Interval}, nil
}

func (r *recorder) Refund(context.Context, quota.Result, []quota.Bucket) error { return nil }

var (
	trusted = []string{"10.0.0.0/8", "fc00::/7", "192.0.2.7"}
	tiers   = quota.Limits(10, 6, time.Minute, 1, 3) // of /run: plain, premium
	rules   = authz.Rules{Policies: policy.Compile(policy.Environment{
		RunBurst: 10, RunPerMinute: 6, AssistantBurst: 20, AssistantPerMinute: 30, PremiumMultiplier: 3,
	}.File(false))}
)

// charged is whose buckets a request from peer with these headers is charged to.
func charged(t *rapid.T, sources authz.UserSources, peer string, headers map[string]string) *recorder {
	var proxies authz.Proxies
	if err := proxies.UnmarshalText([]byte(strings.Join(trusted, ","))); err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	cfg := authz.Config{
		LimitEnabled: true, LimitFailureMode: authz.FailLocal, QueueFailureMode: authz.FailAllow, Headers: authz.HeadersDraft,
		ClientIPHeader: "CF-Connecting-IP", TrustedProxies: proxies, UserSources: sources, RedisTimeout: time.Second, MaxChecks: 10,
	}
	s := authz.New(cfg, rules, r, authz.Traces{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	all := map[string]string{":path": "/run", ":method": "POST"}
	maps.Copy(all, headers)
	req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: peer},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "POST", Path: "/run", Headers: all}},
	}}
	if _, err := s.Check(context.Background(), req); err != nil {
		t.Fatalf("Check: %v", err)
	}
	return r
}

func isTrusted(ip netip.Addr) bool {
	return slices.ContainsFunc(trusted, func(s string) bool {
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(ip.Unmap())
		}
		return netip.MustParseAddr(s) == ip.Unmap()
	})
}

// addresses are of both kinds, some of them trusted proxies' and some IPv4 in IPv6.
func addresses() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return netip.AddrFrom4([4]byte{10, b[0], b[1], b[2]})
		case 1:
			return netip.AddrFrom16([16]byte(append([]byte{0xfd}, b[1:]...)))
		case 2:
			// Not of a network X:0:0::/48: what follows its last colon may be read as a port (see authz, parseHop).
			return netip.AddrFrom16([16]byte(append([]byte{0x20, 1, 0x0d, b[3] | 1}, b[4:]...)))
		case 3:
			return netip.AddrFrom16(netip.AddrFrom4([4]byte(b[:4])).As16())
		default:
			return netip.AddrFrom4([4]byte(b[:4]))
		}
	})
}

// values are what a client may write into a header: addresses, lists of them, and anything.
func values() *rapid.Generator[string] {
	one := rapid.Map(addresses(), netip.Addr.String)
	return rapid.OneOf(one, rapid.Map(rapid.SliceOfN(one, 0, 40), func(s []string) string { return strings.Join(s, ", ") }),
		rapid.SampledFrom([]string{"premium", "", "unknown", "203.0.113.9:80", "[2001:db8::1]:80", "fe80::1%eth0", "1.2.3", ",,,", "127.1"}), rapid.String())
}

func subject(ip netip.Addr) string {
	ip = ip.Unmap()
	if ip.Is4() {
		return "ip:" + ip.String()
	}
	prefix, _ := ip.WithZone("").Prefix(64)
	return "ip:" + prefix.String()
}

// TestStrangersHeadersCountForNothing: whatever somebody who is no trusted proxy writes into headers, the request is
// charged to the address it came from, as a plain caller's.
func TestStrangersHeadersCountForNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peer := addresses().Filter(func(ip netip.Addr) bool { return !isTrusted(ip) }).Draw(t, "peer")
		headers := rapid.MapOfN(rapid.SampledFrom([]string{
			"cf-connecting-ip", "x-forwarded-for", "x-ratelimit-tier", "x-real-ip", "forwarded", "true-client-ip", "x-envoy-external-address",
		}), values(), 0, 5).Draw(t, "headers")
		got := charged(t, nil, peer.String(), headers)
		if want := quota.Key("run", subject(peer)); len(got.keys) != 1 || got.keys[0] != want || got.limit != tiers[0] {
			t.Fatalf("charged to %v, %+v; want %s, plain", got.keys, got.limit, want)
		}
	})
}

// TestForwardedFor: behind trusted proxies the client is the nearest hop that is not one of them, whatever the client
// itself wrote to the left of it.
func TestForwardedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		proxies := rapid.SliceOfN(addresses().Filter(isTrusted), 1, 5).Draw(t, "proxies")
		client := addresses().Filter(func(ip netip.Addr) bool { return !isTrusted(ip) }).Draw(t, "client")
		written := values().Draw(t, "written by the client")
		hops := []string{client.String()}
		if written != "" {
			hops = []string{written, client.String()}
		}
		for _, p := range proxies[1:] {
			hops = append(hops, p.String())
		}
		separator := rapid.SampledFrom([]string{",", ", ", " ,\t"}).Draw(t, "separator")
		headers := map[string]string{"x-forwarded-for": strings.Join(hops, separator)}
		got := charged(t, nil, proxies[0].String(), headers)
		if want := quota.Key("run", subject(client)); len(got.keys) != 1 || got.keys[0] != want {
			t.Fatalf("charged to %v, want %s", got.keys, want)
		}
	})
}

// TestUsersAreApart: different users have different buckets, the same user has one, and the name is in none of them.
func TestUsersAreApart(t *testing.T) {
	names := rapid.StringMatching(`[A-Za-z0-9@._-]{4,64}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := names.Draw(t, "a"), names.Draw(t, "b")
		bucket := func(name, header string) string {
			got := charged(t, authz.UserSources{authz.UserHeader}, "198.51.100.1", map[string]string{header: name})
			if len(got.keys) != 2 || strings.Contains(fmt.Sprint(got.keys), name) {
				t.Fatalf("charged to %v, want the address and a user whose name does not show", got.keys)
			}
			return got.keys[1]
		}
		if bucket(a, "x-user-id") != bucket(a, "x-userid") {
			t.Fatal("one user has two buckets")
		}
		if (bucket(a, "x-user-id") == bucket(b, "x-user-id")) != (a == b) {
			t.Fatal("two users share a bucket")
		}
	})
}
