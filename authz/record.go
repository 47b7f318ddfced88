package authz

import (
	"log/slog"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
)

// record fills the public form of a decision, from which the metadata for Envoy and
// the log line are made.
func record(d Decision) *gatev1.Decision {
	return &gatev1.Decision{
		Verdict: verdict(d.Denied),
		Reason:  string(d.Reason),
		Policy:  string(d.Policy),
		Tier:    string(d.Charged.Tier),
		WaitMs:  d.Wait.Milliseconds(),
		Shadow:  d.Shadow,
	}
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
}

var recordFields = func() []recordField {
	descriptors := (&gatev1.Decision{}).ProtoReflect().Descriptor().Fields()
	fields := make([]recordField, descriptors.Len())
	for i := range fields {
		d := descriptors.Get(i)
		fields[i] = recordField{string(d.Name()), d}
	}
	return fields
}()

// metadata has one key for each field of the record.
func metadata(r *gatev1.Decision) *structpb.Struct {
	message := r.ProtoReflect()
	values := make(map[string]*structpb.Value, len(recordFields))
	for _, f := range recordFields {
		v := message.Get(f.descriptor)
		switch f.descriptor.Kind() {
		case protoreflect.BoolKind:
			values[f.key] = structpb.NewBoolValue(v.Bool())
		case protoreflect.Int64Kind:
			values[f.key] = structpb.NewNumberValue(float64(v.Int()))
		default: // a test fails for kinds that don't read well as text
			values[f.key] = structpb.NewStringValue(v.String())
		}
	}
	return &structpb.Struct{Fields: values}
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
