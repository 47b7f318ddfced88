package envoy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// sameReading compares what is read from the wire with what the generated code makes of
// it, and with the schema of the fields that are used (slim).
func sameReading(t *testing.T, wire []byte) {
	t.Helper()
	before := slices.Clone(wire)
	var r reader
	got, err := r.read(wire)
	if want, ok := slimRead(wire); ok != (err == nil) {
		t.Fatalf("accepted %v (%v), want %v:\n%x", err == nil, err, ok, wire)
	} else if ok {
		sameRequest(t, "the fields that are used", got, want)
	}
	generated := new(authv3.CheckRequest)
	if proto.Unmarshal(wire, generated) == nil {
		if err != nil {
			t.Fatalf("not accepted (%v), unlike by the generated code:\n%x", err, wire)
		}
		sameRequest(t, "the generated code", got, Parse(generated))
	}
	if !slices.Equal(wire, before) {
		t.Fatal("the reader has written to the wire")
	}
	// A reader that is used again reads the same.
	r.reset()
	again, err := r.read(wire)
	var fresh reader
	if got, _ := fresh.read(wire); err == nil {
		sameRequest(t, "a fresh reader", again, got)
	}
}

func sameRequest(t *testing.T, name string, got, want Request) {
	t.Helper()
	if got.Method != want.Method || got.Path != want.Path || got.Policy != want.Policy || got.Peer != want.Peer || got.TooManyHeaders != want.TooManyHeaders {
		t.Fatalf("got  %+v\nwant %+v by %s", got, want, name)
	}
	if (got.jwt == nil) != (want.jwt == nil) || !proto.Equal(got.jwt, want.jwt) {
		t.Fatalf("token %v, want %v by %s", got.jwt, want.jwt, name)
	}
	if len(got.lines) != len(want.lines) || got.raw != want.raw {
		t.Fatalf("%d lines (raw: %v), want %d (raw: %v) by %s", len(got.lines), got.raw, len(want.lines), want.raw, name)
	}
	if !got.raw { // in the order of a map
		same := maps.Equal(entries(got.lines), entries(want.lines))
		if !same || len(entries(got.lines)) != len(got.lines) {
			t.Fatalf("headers %q, want %q by %s", got.lines, want.lines, name)
		}
	} else if !slices.Equal(got.lines, want.lines) {
		t.Fatalf("lines %q, want %q by %s", got.lines, want.lines, name)
	}
	for _, name := range []string{"a", "x-user-id", "X-User-ID", "cf-connecting-ip", ""} {
		value, lines := got.Header(name)
		if wantValue, wantLines := want.Header(name); value != wantValue || lines != wantLines {
			t.Fatalf("header %s: %q in %d lines, want %q in %d", name, value, lines, wantValue, wantLines)
		}
	}
}

func entries(lines []line) map[string]string {
	m := make(map[string]string)
	for _, l := range lines {
		m[l.name] = l.value
	}
	return m
}

// full is a CheckRequest with every field that the gate uses, and some that it does not.
func full(raw bool) *authv3.CheckRequest {
	token, err := structpb.NewStruct(map[string]any{"p": map[string]any{"sub": "ann", "plan": "premium", "n": 1.5, "list": []any{true, nil}}})
	if err != nil {
		panic(err)
	}
	http := &authv3.AttributeContext_HttpRequest{
		Id: "1", Method: "POST", Path: "/run?user_id=ann", Host: "api.example", Scheme: "https", Size: -1, Protocol: "HTTP/2", RawBody: []byte("\xff"),
	}
	if raw {
		http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
			{Key: "x-user-id", RawValue: []byte("ann")}, {Key: "X-User-ID", Value: "bob"}, {Key: "a"}, {},
		}}
	} else {
		http.Headers = map[string]string{"x-user-id": "ann", "a": "", "": "b"}
	}
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "203.0.113.9", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 443},
	}}}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            &authv3.AttributeContext_Peer{Address: address, Service: "s", Labels: map[string]string{"a": "b"}, Principal: "p"},
		Destination:       &authv3.AttributeContext_Peer{Address: address},
		Request:           &authv3.AttributeContext_Request{Time: timestamppb.Now(), Http: http},
		ContextExtensions: map[string]string{"policy": "run", "other": "x"},
		MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			jwtNamespace: token, "other": token,
		}},
		TlsSession: &authv3.AttributeContext_TLSSession{Sni: "api.example"},
	}}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// TestWire reads CheckRequests as the generated code writes them.
func TestWire(t *testing.T) {
	sameReading(t, nil)
	for _, raw := range []bool{true, false} {
		req := full(raw)
		sameReading(t, marshal(t, req))
		sameReading(t, append(marshal(t, req), marshal(t, full(!raw))...)) // both merge
		var r reader
		got, err := r.read(marshal(t, req))
		if err != nil {
			t.Fatal(err)
		}
		if value, lines := got.Header("x-user-id"); got.Path != "/run?user_id=ann" || got.Policy != "run" || !got.Peer.Addr.IsValid() ||
			got.Claim("p", "sub") != "ann" || !strings.HasPrefix(value, "ann") || lines == 0 {
			t.Errorf("raw %v: %+v", raw, got)
		}
	}
	unix := full(true)
	unix.Attributes.Source.Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "@"}}}
	sameReading(t, marshal(t, unix))
	// A socket address, a pipe, and a socket address again: the last one counts alone.
	sameReading(t, slices.Concat(marshal(t, full(true)), marshal(t, unix)))
	sameReading(t, slices.Concat(marshal(t, full(true)), marshal(t, unix), marshal(t, full(true))))
	for _, n := range []int{maxLines - 1, maxLines, maxLines + 1, 3 * maxLines} {
		many := full(true)
		plain := full(false)
		for i := range n {
			many.Attributes.Request.Http.HeaderMap.Headers = append(many.Attributes.Request.Http.HeaderMap.Headers, &corev3.HeaderValue{Key: "a", Value: fmt.Sprint(i)})
			plain.Attributes.Request.Http.Headers[fmt.Sprint(i%(maxLines-3))] = "x"
		}
		sameReading(t, marshal(t, many))
		sameReading(t, marshal(t, plain))
		sameReading(t, append(marshal(t, plain), marshal(t, plain)...)) // the same names
	}
}

// TestMalformedWire cuts CheckRequests at every length, and changes every byte.
func TestMalformedWire(t *testing.T) {
	for _, raw := range []bool{true, false} {
		wire := marshal(t, full(raw))
		for i := range wire {
			sameReading(t, wire[:i])
			for _, c := range []byte{0, 0x0b, 0x7f, 0x80, 0xff, wire[i] ^ 1, wire[i] ^ 4} {
				changed := slices.Clone(wire)
				changed[i] = c
				sameReading(t, changed)
			}
		}
	}
}

// TestBuiltWire builds CheckRequests at random, see build.
func TestBuiltWire(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tape := make([]byte, 200)
	for range 5_000 {
		for i := range tape {
			tape[i] = byte(random.Uint32())
		}
		sameReading(t, build(tape))
	}
}

// TestDeepGroups: groups can't be nested deeper than the generated code takes.
func TestDeepGroups(t *testing.T) {
	for _, depth := range []int{100, protowire.DefaultRecursionLimit, protowire.DefaultRecursionLimit + 1, protowire.DefaultRecursionLimit + 2, 1 << 20} {
		wire := make([]byte, 0, 2*depth)
		for range depth {
			wire = protowire.AppendTag(wire, 2, protowire.StartGroupType)
		}
		for range depth {
			wire = protowire.AppendTag(wire, 2, protowire.EndGroupType)
		}
		sameReading(t, wire)
		sameReading(t, wire[:len(wire)-1])
	}
}

// TestLaxer: what the generated code takes for an error although the gate can tell what it
// says is read.
func TestLaxer(t *testing.T) {
	wire := slices.Concat(marshal(t, full(true)), path("/run?\xff"))
	if proto.Unmarshal(wire, new(authv3.CheckRequest)) == nil {
		t.Fatal("the generated code reads text that is no UTF-8")
	}
	var r reader
	if got, err := r.read(wire); err != nil || got.Path != "/run?\xff" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// path is a CheckRequest with a path alone.
func path(p string) []byte {
	wire := []byte(p)
	for _, num := range []protowire.Number{httpPath, requestHTTP, attributesRequest, requestAttributes} {
		wire = protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), wire)
	}
	return wire
}

func FuzzWire(f *testing.F) {
	for _, raw := range []bool{true, false} {
		f.Add(marshal(f, full(raw)))
		f.Add(append(marshal(f, full(raw)), marshal(f, full(!raw))...))
	}
	f.Fuzz(sameReading)
}

// FuzzBuiltWire is FuzzWire on what build makes of the input, so that more of it is
// protobuf.
func FuzzBuiltWire(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		tape := make([]byte, 100)
		for i := range tape {
			tape[i] = byte(random.Uint32())
		}
		f.Add(tape)
	}
	f.Fuzz(func(t *testing.T, tape []byte) { sameReading(t, build(tape)) })
}

// BenchmarkRead reads a CheckRequest of 1.1 kB, by each codec.
func BenchmarkRead(b *testing.B) {
	req := full(true)
	req.Attributes.MetadataContext = nil
	http := req.Attributes.Request.Http
	http.HeaderMap.Headers = nil
	for i := range 15 {
		http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{
			Key: fmt.Sprint("x-some-header-", i), RawValue: []byte(strings.Repeat("v", 10+4*i)),
		})
	}
	wire := marshal(b, req)
	b.Run("wire", func(b *testing.B) {
		b.SetBytes(int64(len(wire)))
		b.ReportAllocs()
		var r reader
		for b.Loop() {
			if _, err := r.read(wire); err != nil {
				b.Fatal(err)
			}
			r.reset()
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.SetBytes(int64(len(wire)))
		b.ReportAllocs()
		for b.Loop() {
			req := new(authv3.CheckRequest)
			if err := proto.Unmarshal(wire, req); err != nil {
				b.Fatal(err)
			}
			Parse(req)
		}
	})
}
