package load

import (
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Web is HTTP/2 requests to an Envoy.
func Web(path string, callers int) *Traffic {
	return &Traffic{
		Callers: callers,
		fields: []hpack.HeaderField{
			{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
			{Name: ":authority", Value: "api.refrakt.example"}, {Name: "accept", Value: "application/json, text/plain, */*"},
			{Name: "accept-encoding", Value: "gzip, deflate, br, zstd"}, {Name: "accept-language", Value: "en-GB,en;q=0.9,de;q=0.8"},
			{Name: "user-agent", Value: userAgent},
		},
		// Envoy appends an address of its own to x-forwarded-for for clients on the loopback, so the gate needs the
		// other header.
		varying: slices.Concat(literal("x-forwarded-for", anyAddress), literal("cf-connecting-ip", anyAddress), literal("x-user-id", anyUser)),
		judge:   judgeWeb,
	}
}

// Web1 is the same requests by HTTP/1.1.
func Web1(path string, callers int) *Traffic {
	lines := []string{
		"GET " + path + " HTTP/1.1", "host: api.refrakt.example", "accept: application/json, text/plain, */*",
		"accept-encoding: gzip, deflate, br, zstd", "accept-language: en-GB,en;q=0.9,de;q=0.8", "user-agent: " + userAgent,
		"x-forwarded-for: " + anyAddress, "cf-connecting-ip: " + anyAddress, "x-user-id: " + anyUser, "", "",
	}
	return &Traffic{Callers: callers, http1: true, varying: []byte(strings.Join(lines, "\r\n")), judge: judgeWeb}
}

// literal is a header field that is in no table and not compressed, so that its value can be patched. Name and value
// are shorter than 127 bytes.
func literal(name, value string) []byte {
	b := []byte{0x10} // never indexed, with a new name
	for _, s := range []string{name, value} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}
