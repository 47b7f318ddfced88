package load

import (
	"encoding/binary"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// clientHeaders is what a browser's request has when Envoy asks about it.
var clientHeaders = [...]struct{ name, value string }{
	{":authority", "api.refrakt.example"},
	{":method", "POST"},
	{":path", "/%s"},
	{":scheme", "https"},
	{"accept", "application/json, text/plain, */*"},
	{"accept-encoding", "gzip, deflate, br, zstd"},
	{"accept-language", "en-GB,en;q=0.9,de;q=0.8"},
	{"content-length", "312"},
	{"content-type", "application/json"},
	{"origin-agent", "refrakt-web/4.18.2"},
	{"user-agent", userAgent},
	{"x-forwarded-for", anyAddress + ",10.0.0.7"},
	{"x-forwarded-proto", "https"},
	{"x-request-id", "6b1f0a52-9c3e-4b0e-8a43-2f6f7f3f5d11"},
	{"x-user-id", anyUser},
}

const userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36"

// Check asks the gate about requests under a policy, as Envoy does with encode_raw_headers: 1.1 kB with 15 headers.
func Check(policy string, callers int) *Traffic {
	return grpcTraffic("/envoy.service.auth.v3.Authorization/Check", CheckRequest(policy), judgeCheck, callers)
}

// CheckRequest is the request of [Check], of a caller who is to be patched in.
func CheckRequest(policy string) *authv3.CheckRequest {
	var lines []*corev3.HeaderValue
	for _, h := range clientHeaders {
		value := h.value
		if h.name == ":path" {
			value = fmt.Sprintf(value, policy)
		}
		lines = append(lines, &corev3.HeaderValue{Key: h.name, RawValue: []byte(value)})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:      peer("10.0.0.7", 50612),
		Destination: peer("10.0.0.20", 8080),
		Request: &authv3.AttributeContext_Request{
			Time: &timestamppb.Timestamp{Seconds: 1780000000, Nanos: 123456789},
			Http: &authv3.AttributeContext_HttpRequest{
				Id: "1234567890123456789", Method: "POST", Path: "/" + policy, Host: "api.refrakt.example", Scheme: "https",
				Size: 312, Protocol: "HTTP/2", HeaderMap: &corev3.HeaderMap{Headers: lines},
			},
		},
		ContextExtensions:    map[string]string{"policy": policy},
		MetadataContext:      &corev3.Metadata{},
		RouteMetadataContext: &corev3.Metadata{},
	}}
}

func peer(ip string, port uint32) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}},
	}}}
}

func grpcTraffic(path string, m proto.Message, judge func(string, string, []byte) Verdict, callers int) *Traffic {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // a message that was made here
	}
	message := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	return &Traffic{
		Callers: callers,
		fields: []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
			{Name: ":authority", Value: "gate"}, {Name: "te", Value: "trailers"}, {Name: timeoutHeader, Value: "250m"},
			{Name: "content-type", Value: "application/grpc"},
		},
		varying: message, varyingIsBody: true, judge: judge,
	}
}
