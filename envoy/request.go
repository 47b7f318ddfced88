// Package envoy knows the wire form of Envoy's external authorization
// (envoy.service.auth.v3): what a CheckRequest holds, and what a CheckResponse must hold
// so that Envoy does what was decided. No other package knows it. envoy.yaml, beside this
// file, is the configuration of Envoy that goes with it.
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

// maxLines is the largest number of headers that are read. Envoy accepts 100 by default
// (max_headers_count).
const maxLines = 256

// jwtNamespace is the metadata in which Envoy's jwt_authn filter puts the payload of a
// verified token (payload_in_metadata). No client can write there.
const jwtNamespace = "envoy.filters.http.jwt_authn"

// Request is what the gate reads of a CheckRequest. With the zero value, nothing is known
// of the request. [Parse] and [Call.Read] fill it, from the two forms of a CheckRequest.
type Request struct {
	// Method is the HTTP method, such as "POST". It may be empty.
	Method string
	// Path is the :path with the query, not decoded: "/run?user_id=ann". It may be empty.
	Path string
	// Policy is the policy that the route names in its context extension; empty if it
	// names none.
	Policy string
	// Peer is the other end of the connection to Envoy.
	Peer Peer
	// TooManyHeaders says that there were more headers than are read. Then none is read:
	// a header of the client's could hide the one that a proxy added.
	TooManyHeaders bool

	lines []line
	raw   bool // lines are those of header_map, else the entries of headers
	jwt   *structpb.Struct
}

// line is one header. In the map headers of a CheckRequest a name is there once, in lower
// case. In header_map a name has as many lines as the client sent.
type line struct{ name, value string }

// Peer is the other end of a connection to Envoy. With the zero value, it is not known.
type Peer struct {
	// Addr is the address, without a zone; IPv4 in IPv6 is IPv4. It is the zero Addr if
	// there is none.
	Addr netip.Addr
	// Unix says that the connection came over a unix socket.
	Unix bool
}

// Parse reads a CheckRequest that the generated code has decoded. Any part of req may be
// missing.
func Parse(req *authv3.CheckRequest) Request {
	attrs := req.GetAttributes()
	http := attrs.GetRequest().GetHttp()
	address := attrs.GetSource().GetAddress()
	r := Request{
		Method: http.GetMethod(),
		Path:   http.GetPath(),
		Policy: attrs.GetContextExtensions()[PolicyExtension],
		Peer:   peer(address.GetPipe() != nil, address.GetSocketAddress().GetAddress()),
		jwt:    attrs.GetMetadataContext().GetFilterMetadata()[jwtNamespace],
	}
	plain, raw := http.GetHeaders(), http.GetHeaderMap().GetHeaders()
	switch {
	case len(plain) > maxLines || len(raw) > maxLines:
		r.TooManyHeaders = true
	case len(raw) > 0:
		r.raw, r.lines = true, rawLines(raw)
	default:
		r.lines = plainLines(plain)
	}
	return r
}

func rawLines(headers []*corev3.HeaderValue) []line {
	lines := make([]line, len(headers))
	for i, h := range headers {
		lines[i] = rawLine(h.GetKey(), h.GetValue(), text(h.GetRawValue()))
	}
	return lines
}

// rawLine is a line of header_map. Envoy sends its value in raw, older releases in value.
func rawLine(name, value, raw string) line {
	if raw != "" {
		value = raw
	}
	return line{name, value}
}

func plainLines(headers map[string]string) []line {
	lines := make([]line, 0, len(headers))
	for name, value := range headers {
		lines = append(lines, line{name, value})
	}
	return lines
}

// Claim returns a claim of the verified token; nil if there is none. payload is the
// provider's payload_in_metadata. The claim is a string, a float64, a bool, or a slice or
// map of those.
func (r Request) Claim(payload, claim string) any {
	token := r.jwt.GetFields()[payload].GetStructValue()
	return token.GetFields()[claim].AsInterface()
}

func peer(unix bool, address string) Peer {
	if unix {
		return Peer{Unix: true}
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return Peer{}
	}
	return Peer{Addr: addr.Unmap().WithZone("")}
}

// Header returns the value of the header name (ASCII, lower case) and the number of its lines; 0
// lines mean that the header is absent. Several lines are joined by commas, in order.
// Without encode_raw_headers Envoy joins them itself and counts one line, so a value with
// a comma may have been several lines.
func (r Request) Header(name string) (value string, lines int) {
	var joined []byte // of the second line and those after it
	for i := range r.lines {
		l := &r.lines[i]
		if len(l.name) != len(name) || l.name != name && (!r.raw || !strings.EqualFold(l.name, name)) {
			continue
		}
		if lines == 0 {
			value = l.value
		} else {
			joined = append(append(joined, ','), l.value...)
		}
		lines++
	}
	return value + string(joined), lines
}
