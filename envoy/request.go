// Package envoy is the only place that knows the wire form of Envoy's external
// authorization (envoy.service.auth.v3): what a CheckRequest holds, and what a
// CheckResponse must hold so that Envoy does what was decided. The Envoy
// configuration that goes with it lies beside it.
package envoy

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// PolicyExtension is the key of the context extension in which Envoy's route
// names the policy.
const PolicyExtension = "policy"

// maxLines bounds the headers that are looked through; Envoy lets 100 through unless told otherwise
// (max_headers_count).
const maxLines = 256

// jwtNamespace is where Envoy's jwt_authn filter puts the payload of a token that
// it has verified (payload_in_metadata). No client can write there.
const jwtNamespace = "envoy.filters.http.jwt_authn"

// Request is what the gate reads of a CheckRequest. Its zero value is a request
// of which nothing is known.
type Request struct {
	// Method is the HTTP method, Path the :path with the query, undecoded. Either
	// may be empty.
	Method, Path string
	// Policy is the context extension of the route; empty if there is none.
	Policy string
	// Peer is who is connected to Envoy.
	Peer Peer
	// Crowded says that there were more headers than are looked through. It has none
	// then: with some of them, what a client wrote could hide what a proxy added.
	Crowded bool

	headers map[string]string
	lines   []*corev3.HeaderValue
	jwt     *structpb.Struct
}

// Peer is the other end of the connection to Envoy; the zero value is unknown.
type Peer struct {
	// Addr is its address, unmapped and without a zone; the zero Addr if it has none.
	Addr netip.Addr
	// Unix says that it came over a unix socket.
	Unix bool
}

// Parse reads a CheckRequest, any part of which may be missing.
func Parse(req *authv3.CheckRequest) Request {
	attrs := req.GetAttributes()
	http := attrs.GetRequest().GetHttp()
	r := Request{
		Method:  http.GetMethod(),
		Path:    http.GetPath(),
		Policy:  attrs.GetContextExtensions()[PolicyExtension],
		Peer:    peer(attrs.GetSource().GetAddress()),
		headers: http.GetHeaders(),
		lines:   http.GetHeaderMap().GetHeaders(),
		jwt:     attrs.GetMetadataContext().GetFilterMetadata()[jwtNamespace],
	}
	if len(r.headers) > maxLines || len(r.lines) > maxLines {
		r.Crowded, r.headers, r.lines = true, nil, nil
	}
	return r
}

// Claim returns a claim of the verified token whose payload Envoy keeps under
// payload, the provider's payload_in_metadata; nil if there is none. It is a
// string, a float64, a bool, or a slice or map of those.
func (r Request) Claim(payload, claim string) any {
	token := r.jwt.GetFields()[payload].GetStructValue()
	return token.GetFields()[claim].AsInterface()
}

func peer(a *corev3.Address) Peer {
	if a.GetPipe() != nil {
		return Peer{Unix: true}
	}
	addr, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil {
		return Peer{}
	}
	return Peer{Addr: addr.Unmap().WithZone("")}
}

// Header returns the value of the header name (lower case) and the number of
// lines it came in: 0 means that it is absent. Several lines are joined by
// commas in order, as Envoy does itself where it does not send them apart
// (encode_raw_headers off), so a value with a comma may have been several.
func (r Request) Header(name string) (value string, lines int) {
	if r.lines == nil {
		value, ok := r.headers[name]
		if !ok {
			return "", 0
		}
		return value, 1
	}
	var joined []byte // of the second line and those after it
	for _, h := range r.lines {
		if !strings.EqualFold(h.GetKey(), name) {
			continue
		}
		v := h.GetValue()
		if raw := h.GetRawValue(); len(raw) > 0 {
			v = string(raw)
		}
		if lines == 0 {
			value = v
		} else {
			joined = append(append(joined, ','), v...)
		}
		lines++
	}
	return value + string(joined), lines
}
