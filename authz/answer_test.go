package authz

import (
	"log/slog"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/refrakt-hub/refrakt-gate/internal/metrictest"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// TestAnswersAreTheSame: for every decision the answer on the wire is that of the
// generated code, and its metadata is the record of that decision. The drafts are used
// again and again.
func TestAnswersAreTheSame(t *testing.T) {
	reasons := []Reason{ReasonOK, ReasonNotGuarded, ReasonPreflight}
	for reason := range details {
		reasons = append(reasons, reason)
	}
	buckets := []*quota.Result{nil}
	for _, debt := range []time.Duration{0, time.Millisecond, tenTokens.Span() / 2, tenTokens.Span()} {
		buckets = append(buckets, &quota.Result{Limit: tenTokens, Taken: debt > 0, Debt: debt}, &quota.Result{Limit: thirtyTokens, Debt: debt})
	}
	buckets = append(buckets, &quota.Result{Limit: quota.Limit{Capacity: 1e9, Interval: time.Minute}})
	s := serve(config(t), quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	var a draft
	n := 0
	for _, name := range []string{"run", "assistant", policyUnknown, policyNone} {
		for _, reason := range reasons {
			for _, tier := range []string{"plain", "premium", ""} {
				for _, form := range []HeaderForm{HeadersDraft, HeadersLegacy, HeadersOff} {
					for i, state := range buckets {
						for _, denied := range []bool{true, false} {
							d := &Decision{Policy: name, Reason: reason, Denied: denied, Shadow: i%2 == 0, Charged: Caller{Tier: tier}, Bucket: state, Buckets: []bucket{{name: "run"}}, Told: `"run";q=1;w=1`}
							if denied {
								d.Wait = []time.Duration{0, time.Millisecond, 1500 * time.Millisecond, time.Hour, 1 << 62}[n%5]
							}
							if n%2 == 0 {
								d.Caller.IP, d.Charged.User = "ip:203.0.113.9", "user:SZFeDX1LQC4wF9AQvBwOgw"
							}
							n++
							a.write(d, s.rules.Load().templates.get(d.kind()), form)
							checkAnswer(t, &a, d)
						}
					}
				}
			}
		}
	}
	t.Log(n, "decisions")
}

func checkAnswer(t *testing.T, a *draft, d *Decision) {
	t.Helper()
	got := new(authv3.CheckResponse)
	if err := proto.Unmarshal(a.reply.Answer().ReadOnlyData(), got); err != nil {
		t.Fatalf("%+v: %v", d, err)
	}
	if want := a.reply.Response(); !proto.Equal(got, want) {
		t.Fatalf("%+v:\ngot  %v\nwant %v", d, got, want)
	}
	want := &gatev1.Decision{
		Verdict: verdict(d.Denied), Reason: string(d.Reason), Policy: d.Policy, Tier: d.Charged.Tier, WaitMs: d.Wait.Milliseconds(), Shadow: d.Shadow,
		User: d.Charged.User,
	}
	if d.Caller.IP != "" {
		want.Ip = hashIP(d.Caller.IP)
	}
	fields := want.ProtoReflect().Descriptor().Fields()
	metadata := got.GetDynamicMetadata().AsMap()
	shown := 0
	for i := range fields.Len() {
		f := fields.Get(i)
		if name := string(f.Name()); (name == "ip" || name == "user") && !want.ProtoReflect().Has(f) {
			if _, there := metadata[name]; there {
				t.Fatalf("%+v: metadata %v has %s", d, metadata, name)
			}
			continue
		}
		shown++
		value := want.ProtoReflect().Get(f).Interface()
		if f.Kind() == protoreflect.Int64Kind {
			value = float64(value.(int64))
		}
		if metadata[string(f.Name())] != value {
			t.Fatalf("%+v: metadata %v, want %s = %v", d, metadata, f.Name(), value)
		}
	}
	if len(metadata) != shown {
		t.Fatalf("%+v: metadata %v has other keys", d, metadata)
	}
}

// TestNotProtobuf: what can't be read is an error, as with the generated code, and is
// not counted as a decision.
func TestNotProtobuf(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := serve(config(t), quota.NewMemory(), nil, reg, slog.New(slog.DiscardHandler))
	for _, request := range [][]byte{{0x0a}, encode(t, checkRequest("203.0.113.9", "/run", true))[:20]} {
		if _, err := codecs["standard"](t.Context(), s, request); err == nil {
			t.Fatalf("the generated code reads %x", request)
		}
		if _, err := codecs["wire"](t.Context(), s, request); status.Code(err) != codes.Internal {
			t.Errorf("%x: %v", request, err)
		}
	}
	if n := metrictest.Value(t, reg, "refrakt_gate_checks_in_progress"); n != 0 {
		t.Errorf("%v in progress", n)
	}
	if n := metrictest.Value(t, reg, "refrakt_gate_check_duration_seconds"); n != 0 {
		t.Errorf("%v counted", n)
	}
}
