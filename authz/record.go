package authz

import (
	"log/slog"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
)

// record fills the public form of a decision, from which the metadata for Envoy and
// the log line are made.
func record(r *gatev1.Decision, d *Decision) {
	r.Verdict = verdict(d.Denied)
	r.Reason = string(d.Reason)
	r.Policy = d.Policy
	r.Tier = d.Charged.Tier
	r.WaitMs = d.Wait.Milliseconds()
	r.Shadow = d.Shadow
	r.Ip, r.User = "", d.Charged.User
	if d.Caller.IP != "" {
		r.Ip = hashIP(d.Caller.IP)
	}
}

// hashIP returns the address in the record: "ip:" and the hash of the subject, which is as in
// [Caller].
func hashIP(subject string) string {
	var scratch [32]byte
	return string(appendHash(append(scratch[:0], ipKind...), subject))
}

func verdict(denied bool) string {
	if denied {
		return "deny"
	}
	return "allow"
}

// recordField is one field of the record; its name in decision.proto is its key in
// the metadata and in the log.
type recordField struct {
	key        string
	descriptor protoreflect.FieldDescriptor
	kind       protoreflect.Kind
}

// The fields of the record. Those with many values are written for each answer; the
// constants have few, so they are encoded ahead.
var (
	recordFields = newRecordFields()
	variables    = slices.DeleteFunc(slices.Clone(recordFields), recordField.isConstant)
	constants    = slices.DeleteFunc(slices.Clone(recordFields), func(f recordField) bool { return !f.isConstant() })
)

func (f recordField) isConstant() bool {
	return f.kind != protoreflect.Int64Kind && f.key != "ip" && f.key != "user"
}

func newRecordFields() []recordField {
	descriptors := (&gatev1.Decision{}).ProtoReflect().Descriptor().Fields()
	fields := make([]recordField, descriptors.Len())
	for i := range fields {
		d := descriptors.Get(i)
		fields[i] = recordField{string(d.Name()), d, d.Kind()}
	}
	return fields
}

// addMetadata adds one key for each of these fields of the record. A caller who is not known
// has none.
func addMetadata(reply *envoy.Reply, r *gatev1.Decision, fields []recordField) {
	message := r.ProtoReflect()
	for _, f := range fields {
		v := message.Get(f.descriptor)
		switch f.kind {
		case protoreflect.BoolKind:
			reply.AddFlag(f.key, v.Bool())
		case protoreflect.Int64Kind:
			reply.AddNumber(f.key, float64(v.Int()))
		default: // a test fails for kinds that don't read well as text
			if text := v.String(); text != "" || f.isConstant() {
				reply.AddText(f.key, text)
			}
		}
	}
}

// attributes has one attribute of a log line for each field of the record.
func attributes(r *gatev1.Decision) []slog.Attr {
	message := r.ProtoReflect()
	attrs := make([]slog.Attr, len(recordFields))
	for i, f := range recordFields {
		attrs[i] = slog.Any(f.key, message.Get(f.descriptor).Interface())
	}
	return attrs
}
