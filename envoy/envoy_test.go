package envoy

import (
	"net/netip"
	"strconv"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
)

func request(http *authv3.AttributeContext_HttpRequest) Request {
	return Parse(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: http}}})
}

func TestHeader(t *testing.T) {
	plain := request(&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"a": "1,2", "empty": ""}})
	raw := request(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "A", RawValue: []byte("1")}, {Key: "b", Value: "x"}, nil, {Key: "a", RawValue: []byte("\xff")}, {Key: "empty"}, {Key: "\u212aey"},
	}}})
	three := request(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "a", Value: "1"}, {Key: "a", Value: "2"}, {Key: "a", Value: "3"},
	}}})
	for name, tt := range map[string]struct {
		r      Request
		header string
		value  string
		lines  int
	}{
		"plain, joined by Envoy": {plain, "a", "1,2", 1},
		"plain, empty":           {plain, "empty", "", 1},
		"plain, absent":          {plain, "b", "", 0},
		"raw, two lines":         {raw, "a", "1,\xff", 2},
		"raw, three lines":       {three, "a", "1,2,3", 3},
		"raw, in value":          {raw, "b", "x", 1},
		"raw, empty":             {raw, "empty", "", 1},
		"raw, absent":            {raw, "c", "", 0},
		"raw, no ASCII":          {raw, "key", "", 0}, // though Unicode folds the sign for kelvin to k
		"nothing known":          {Parse(nil), "a", "", 0},
	} {
		if value, lines := tt.r.Header(tt.header); value != tt.value || lines != tt.lines {
			t.Errorf("%s: got %q in %d lines, want %q in %d", name, value, lines, tt.value, tt.lines)
		}
	}
}

// TestTooManyHeaders: none of the headers is read then, not even the first.
func TestTooManyHeaders(t *testing.T) {
	most, raw, plain := new(corev3.HeaderMap), new(corev3.HeaderMap), map[string]string{"a": "1"}
	for i := range maxLines {
		most.Headers = append(most.Headers, &corev3.HeaderValue{Key: "a", RawValue: []byte("1")})
		plain[strconv.Itoa(i)] = ""
	}
	raw.Headers = append(most.Headers[:maxLines:maxLines], &corev3.HeaderValue{Key: "b"})
	for name, tt := range map[string]struct {
		http  *authv3.AttributeContext_HttpRequest
		lines int
	}{
		"as many as are read": {&authv3.AttributeContext_HttpRequest{HeaderMap: most}, maxLines},
		"one more":            {&authv3.AttributeContext_HttpRequest{HeaderMap: raw}, 0},
		"one more, plain":     {&authv3.AttributeContext_HttpRequest{Headers: plain}, 0},
	} {
		r := request(tt.http)
		if _, lines := r.Header("a"); lines != tt.lines || r.TooManyHeaders != (tt.lines == 0) {
			t.Errorf("%s: %d lines, too many: %v, want %d", name, lines, r.TooManyHeaders, tt.lines)
		}
	}
}

func TestPeer(t *testing.T) {
	address := func(s string) *corev3.Address {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: s}}}
	}
	for name, tt := range map[string]struct {
		address *corev3.Address
		want    Peer
	}{
		"none":         {nil, Peer{}},
		"empty":        {&corev3.Address{}, Peer{}},
		"IPv4":         {address("203.0.113.9"), Peer{Addr: netip.MustParseAddr("203.0.113.9")}},
		"IPv4 in IPv6": {address("::ffff:203.0.113.9"), Peer{Addr: netip.MustParseAddr("203.0.113.9")}},
		"zone":         {address("fe80::1%eth0"), Peer{Addr: netip.MustParseAddr("fe80::1")}},
		"a name":       {address("localhost"), Peer{}},
		"unix":         {&corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/x"}}}, Peer{Unix: true}},
	} {
		req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{Address: tt.address}}}
		if got := Parse(req).Peer; got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestResponse checks what Envoy could misunderstand: if the status is missing or 0, the
// request passes, whatever else the response holds.
func TestResponse(t *testing.T) {
	var reply Reply
	reply.AddHeader("ratelimit", []byte("x"))
	allowed := reply.Response()
	if allowed.GetStatus() == nil || allowed.GetStatus().GetCode() != int32(codes.OK) || len(allowed.GetOkResponse().GetResponseHeadersToAdd()) != 1 {
		t.Errorf("allowed: %v", allowed)
	}
	reply.Reset(nil)
	reply.Status, reply.Body = 503, "{}"
	reply.AddHeader("retry-after", []byte("1"))
	denied := reply.Response()
	if denied.GetStatus().GetCode() != int32(codes.PermissionDenied) || denied.GetDeniedResponse().GetStatus().GetCode() != 503 || denied.GetDeniedResponse().GetBody() != "{}" {
		t.Errorf("denied: %v", denied)
	}
	for _, resp := range []*authv3.CheckResponse{allowed, denied} {
		for _, o := range append(resp.GetOkResponse().GetResponseHeadersToAdd(), resp.GetDeniedResponse().GetHeaders()...) {
			if o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || len(o.GetHeader().GetRawValue()) > 0 {
				t.Errorf("header %v: Envoy must overwrite, and reads value only", o)
			}
		}
	}
}
