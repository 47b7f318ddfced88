package authz

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

// TestRecordIsFilled: record sets every field of decision.proto, and each has a kind that
// metadata and log can show.
func TestRecordIsFilled(t *testing.T) {
	r := new(gatev1.Decision)
	record(r, &Decision{
		Policy: "run", Reason: ReasonQueueFull, Denied: true, Shadow: true, Wait: 90 * time.Millisecond,
		Caller: Caller{IP: "ip:203.0.113.9"}, Charged: Caller{Tier: "premium", User: "user:x"},
	})
	kinds := []protoreflect.Kind{protoreflect.StringKind, protoreflect.BoolKind, protoreflect.Int64Kind}
	fields := r.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !r.ProtoReflect().Has(f) {
			t.Errorf("%s is not filled", f.Name())
		}
		if f.IsList() || f.IsMap() || !slices.Contains(kinds, f.Kind()) {
			t.Errorf("%s is of a kind that metadata and attributes don't know", f.Name())
		}
	}
}

// TestHashIP: the hash is that of other tools, for scripts: sha256sum, its first half in
// base64url (RFC 4648, section 5).
func TestHashIP(t *testing.T) {
	if got, want := hashIP("ip:203.0.113.9"), "ip:wi2wKE6zZyYaWBcXPck9Ew"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestRecordIsShown: the metadata for Envoy and the log line hold the same fields and
// values, each under its name in decision.proto.
func TestRecordIsShown(t *testing.T) {
	byCodec(t, "", recordIsShown)
}

func recordIsShown(t *testing.T, codec string) {
	var log bytes.Buffer
	cfg := config(t)
	cfg.LimitShadow = everywhere
	var calls []string
	queue := fakeQueue{calls: &calls, shed: backpressure.StateOK, admit: backpressure.StateFull}
	s := serve(cfg, fakeLimiter{&calls, denies}, queue, prometheus.NewRegistry(),
		slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	resp := ask(t.Context(), t, codec, s, checkRequest("203.0.113.9", "/run", true, line{"x-user-id", "ann"}))
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%v:\n%s", err, &log)
	}
	meta := resp.GetDynamicMetadata().AsMap()
	want := map[string]any{"verdict": "deny", "reason": "queue_full", "policy": "run", "tier": "plain", "wait_ms": 33000.0, "shadow": true,
		"ip": hashIP("ip:203.0.113.9"), "user": string(appendUserSubject(nil, claimedUserKind, "ann"))}
	for key, value := range want {
		if meta[key] != value || line[key] != value {
			t.Errorf("%s: metadata %v, log %v, want %v", key, meta[key], line[key], value)
		}
	}
	if n := (&gatev1.Decision{}).ProtoReflect().Descriptor().Fields().Len(); len(meta) != n || len(want) != n {
		t.Errorf("%d keys in the metadata, %d wanted, decision.proto has %d", len(meta), len(want), n)
	}
	if len(line) != len(want)+3 { // time, level, msg
		t.Errorf("the log line has %d keys: %s", len(line), &log)
	}
}

func BenchmarkAnswer(b *testing.B) {
	d := &Decision{Policy: "run", Reason: ReasonOK, Charged: Caller{Tier: "plain"}, Bucket: &quota.Result{Limit: tenTokens, Taken: true}}
	s := serve(config(b), quota.NewMemory(), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	d.Buckets, d.Told = s.rules.Load().first.anonymous, s.rules.Load().first.told[0][0]
	var answer draft
	b.ReportAllocs()
	for b.Loop() {
		answer.write(d, s.rules.Load().templates.get(d.kind()), HeadersDraft)
		answer.reply.Answer()
	}
}
