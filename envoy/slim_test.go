package envoy

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// The slim schema has the fields that the gate uses and no others. Text has the type
// bytes, which takes any, and entries of maps are messages, whose values all stay. The
// protobuf library reads it for [slimRead]. So that is what the reader must accept, and what
// it must read, also where the generated code takes a field that is not used, or text that
// is no UTF-8, for an error.
var slim = slimFile(map[string][]slimField{
	"CheckRequest":  {{num: 1, name: "attributes", of: "Attributes"}},
	"Attributes":    {{num: 1, name: "source", of: "Peer"}, {num: 4, name: "request", of: "Request"}, {num: 10, name: "extensions", of: "Entry", repeated: true}, {num: 11, name: "metadata", of: "Metadata"}},
	"Peer":          {{num: 1, name: "address", of: "Address"}},
	"Address":       {{num: 1, name: "socket", of: "SocketAddress", oneof: true}, {num: 2, name: "pipe", oneof: true}, {num: 3, name: "internal", oneof: true}},
	"SocketAddress": {{num: 2, name: "address"}},
	"Request":       {{num: 2, name: "http", of: "HTTP"}},
	"HTTP":          {{num: 2, name: "method"}, {num: 3, name: "headers", of: "Entry", repeated: true}, {num: 4, name: "path"}, {num: 13, name: "map", of: "HeaderMap"}},
	"HeaderMap":     {{num: 1, name: "headers", of: "Header", repeated: true}},
	"Header":        {{num: 1, name: "key"}, {num: 2, name: "value"}, {num: 3, name: "raw"}},
	"Metadata":      {{num: 1, name: "filter", of: "Entry", repeated: true}},
	"Entry":         {{num: 1, name: "key"}, {num: 2, name: "value", repeated: true}},
})

type slimField struct {
	num             int32
	name, of        string // of: the message; empty: bytes
	repeated, oneof bool
}

func slimFile(schema map[string][]slimField) protoreflect.MessageDescriptors {
	file := &descriptorpb.FileDescriptorProto{Name: new("slim.proto"), Syntax: new("proto3")}
	for name, fields := range schema {
		m := &descriptorpb.DescriptorProto{Name: new(name)}
		for _, f := range fields {
			d := &descriptorpb.FieldDescriptorProto{
				Name: new(f.name), Number: new(f.num),
				Type: descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}
			if f.of != "" {
				d.Type, d.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new("."+f.of)
			}
			if f.repeated {
				d.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			}
			if f.oneof {
				d.OneofIndex = new(int32(0))
				m.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: new("which")}}
			}
			m.Field = append(m.Field, d)
		}
		file.MessageType = append(file.MessageType, m)
	}
	d, err := protodesc.NewFile(file, nil)
	if err != nil {
		panic(err)
	}
	return d.Messages()
}

// slimRead returns what a CheckRequest says by the slim schema, or false if it is
// malformed.
func slimRead(wire []byte) (r Request, ok bool) {
	m := dynamicpb.NewMessage(slim.ByName("CheckRequest"))
	if proto.Unmarshal(wire, m) != nil {
		return r, false
	}
	attrs := slimMessage{m}.get("attributes")
	http := attrs.get("request").get("http")
	address := attrs.get("source").get("address")
	r = Request{
		Method: http.text("method"), Path: http.text("path"), Peer: peer(address.has("pipe"), address.get("socket").text("address")),
	}
	for _, e := range attrs.list("extensions") {
		if e.text("key") == PolicyExtension {
			r.Policy = e.last("value")
		}
	}
	for _, e := range attrs.get("metadata").list("filter") {
		if e.text("key") != jwtNamespace {
			continue
		}
		r.jwt = new(structpb.Struct)
		values := e.Get(e.field("value")).List()
		for i := range values.Len() {
			if (proto.UnmarshalOptions{Merge: true}).Unmarshal(values.Get(i).Bytes(), r.jwt) != nil {
				return r, false
			}
		}
	}
	var raw []line
	for _, h := range http.get("map").list("headers") {
		value := h.text("value")
		if v := h.text("raw"); v != "" {
			value = v
		}
		raw = append(raw, line{h.text("key"), value})
	}
	plain := make(map[string]string)
	for _, e := range http.list("headers") {
		plain[e.text("key")] = e.last("value")
	}
	switch {
	case len(raw) > maxLines || len(plain) > maxLines:
		r.TooManyHeaders = true
	case len(raw) > 0:
		r.raw, r.lines = true, raw
	default:
		r.lines = plainLines(plain)
	}
	return r, true
}

type slimMessage struct{ protoreflect.Message }

func (m slimMessage) field(name string) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(protoreflect.Name(name))
}
func (m slimMessage) has(name string) bool { return m.Has(m.field(name)) }
func (m slimMessage) get(name string) slimMessage {
	return slimMessage{m.Get(m.field(name)).Message()}
}
func (m slimMessage) text(name string) string { return string(m.Get(m.field(name)).Bytes()) }

func (m slimMessage) last(name string) string {
	l := m.Get(m.field(name)).List()
	if l.Len() == 0 {
		return ""
	}
	return string(l.Get(l.Len() - 1).Bytes())
}

func (m slimMessage) list(name string) (messages []slimMessage) {
	l := m.Get(m.field(name)).List()
	for i := range l.Len() {
		messages = append(messages, slimMessage{l.Get(i).Message()})
	}
	return messages
}
