package envoy

import (
	"math"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// sameAnswer compares the answer on the wire with the generated code's, also where the
// reply is a template for another one.
func sameAnswer(t *testing.T, r *Reply) {
	t.Helper()
	sameEncoding(t, r)
	var whole, based Reply
	based.AddText("not", "seen")
	based.Reset(r.Template())
	sameEncoding(t, &based)
	whole.Status, whole.Body, whole.headers, whole.values, whole.metadata = r.Status, r.Body, slices.Clip(r.headers), r.values, r.metadata
	for _, reply := range []*Reply{&based, &whole} {
		reply.AddHeader("retry-after", []byte("7"))
		reply.AddNumber("wait_ms", 7)
	}
	sameEncoding(t, &based)
	if got, want := based.Response(), whole.Response(); !proto.Equal(got, want) {
		t.Fatalf("got  %v by a template\nwant %v", got, want)
	}
}

func sameEncoding(t *testing.T, r *Reply) {
	t.Helper()
	want := r.Response()
	wire := r.Answer().ReadOnlyData()
	got := new(authv3.CheckResponse)
	if err := proto.Unmarshal(wire, got); err != nil {
		t.Fatalf("%v:\n%x", err, wire)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	// Nothing is written longer or twice.
	if n := len(marshal(t, want)); len(wire) != n {
		t.Fatalf("%d bytes, the generated code writes %d: %x", len(wire), n, wire)
	}
	data, err := NewCodec().Marshal(r.Answer())
	if err != nil || string(data.Materialize()) != string(wire) {
		t.Fatalf("the codec sends %x, %v", data.Materialize(), err)
	}
}

// TestAnswer: an answer on the wire is what the generated code writes, at every length at
// which a message needs a longer length, and at which the bytes need more room.
func TestAnswer(t *testing.T) {
	var r Reply
	sameAnswer(t, &r)
	for _, status := range []int{0, 403, 429, 503} {
		for n := range 700 {
			r.Reset(nil)
			r.Status = status
			r.AddHeader("a", []byte(strings.Repeat("x", n)))
			sameAnswer(t, &r)
		}
	}
	for n := range 20_000 {
		if n > 700 && n < 16_000 && n%997 != 0 {
			continue
		}
		r.Reset(nil)
		r.Status, r.Body = 503, strings.Repeat("x", n)
		r.AddHeader("retry-after", []byte("1"))
		r.AddHeader("", nil)
		r.AddText("text", r.Body)
		sameAnswer(t, &r)
	}
	r.Reset(nil)
	for _, f := range []float64{0, math.Copysign(0, -1), 1, -1.5, math.MaxFloat64, math.Inf(1)} {
		r.AddNumber(strings.Repeat("k", len(r.metadata)), f)
	}
	r.AddFlag("yes", true)
	r.AddFlag("no", false)
	r.AddText("empty", "")
	sameAnswer(t, &r)
}

// TestAnswersAreApart: an answer does not change when its reply is used again.
func TestAnswersAreApart(t *testing.T) {
	var r Reply
	r.AddHeader("a", []byte(strings.Repeat("x", 10_000))) // memory for all that follows
	r.Reset(nil)
	r.AddHeader("a", []byte("1"))
	first := r.Answer()
	before := string(first.ReadOnlyData())
	r.Reset(nil)
	r.AddHeader("b", []byte(strings.Repeat("2", 1000)))
	r.AddText("c", "d")
	sameAnswer(t, &r)
	if string(first.ReadOnlyData()) != before {
		t.Error("the first answer has changed")
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(429, "{}", "retry-after", "1", "reason", "rate_limited", 1.5, true)
	f.Add(0, "", "", "", "", "", 0.0, false)
	f.Fuzz(func(t *testing.T, status int, body, name, value, key, text string, number float64, flag bool) {
		r := Reply{Status: int(int32(status)), Body: strings.ToValidUTF8(body, "")}
		for range 2 {
			r.AddHeader(strings.ToValidUTF8(name, ""), []byte(strings.ToValidUTF8(value, "")))
		}
		key = strings.ToValidUTF8(key, "")
		r.AddText(key+"t", strings.ToValidUTF8(text, ""))
		r.AddNumber(key+"n", number)
		r.AddFlag(key+"f", flag)
		sameAnswer(t, &r)
	})
}
