package envoy

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// build makes a CheckRequest, or something close to one, as the bytes of the tape decide:
// messages that come in parts, fields that come twice, unknown fields and groups, wrong
// wire types, numbers and lengths that are longer than need be, and, rarely, something
// malformed.
func build(tape []byte) []byte {
	b := builder{tape}
	return b.message(slim.ByName("CheckRequest"))
}

type builder struct{ tape []byte }

// next returns a number below n. With a tape that is at its end it returns 0.
func (b *builder) next(n int) int {
	if len(b.tape) == 0 {
		return 0
	}
	v := int(b.tape[0])
	b.tape = b.tape[1:]
	return v % n
}

var words = []string{
	"a", "A", "x-user-id", "X-User-Id", "policy", "run", "assistant", "POST", "/run?user_id=ann", "203.0.113.9", "::ffff:192.0.2.1", "fe80::1%eth0",
	"", "\xff", "é", jwtNamespace, "cf-connecting-ip", "x",
	"\x0a\x09\x0a\x01p\x12\x04\x2a\x02\x0a\x00", // a Struct
	"\x0a\x05\x0a\x01p\x12\x00",                 // another one
}

func (b *builder) message(d protoreflect.MessageDescriptor) (out []byte) {
	for range b.next(7) {
		fields := d.Fields()
		f := fields.Get(b.next(fields.Len()))
		num := f.Number()
		var one []byte
		switch b.next(20) {
		case 0: // not a field of the gate's
			one = protowire.AppendVarint(protowire.AppendTag(nil, protowire.Number(1+b.next(16)), protowire.VarintType), uint64(b.next(256))<<b.next(57))
		case 1:
			one = protowire.AppendFixed64(protowire.AppendTag(nil, num, protowire.Fixed64Type), uint64(b.next(256)))
		case 2:
			one = protowire.AppendFixed32(protowire.AppendTag(nil, num, protowire.Fixed32Type), uint32(b.next(256)))
		case 3:
			one = protowire.AppendTag(nil, num, protowire.StartGroupType)
			one = append(one, b.content(f)...)
			one = protowire.AppendTag(one, num+protowire.Number(b.next(20)/19), protowire.EndGroupType)
		case 4:
			// The largest number is 1<<29 - 1.
			one = protowire.AppendVarint(nil, uint64(b.next(256))<<b.next(26)<<3|uint64(protowire.BytesType))
			one = protowire.AppendBytes(one, b.content(f))
		case 5: // longer than need be
			one = b.padded(protowire.EncodeTag(num, protowire.BytesType))
			content := b.content(f)
			one = append(append(one, b.padded(uint64(len(content)))...), content...)
		case 6: // the same again
			one = out
		default:
			one = protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b.content(f))
		}
		out = append(out, one...)
	}
	switch b.next(64) {
	case 63:
		out = out[:len(out)-min(len(out), 1+b.next(3))]
	case 62:
		out = append(out, byte(b.next(256)), byte(b.next(256)))
	}
	return out
}

// content is what a field of the gate's holds.
func (b *builder) content(f protoreflect.FieldDescriptor) []byte {
	if f.Message() != nil {
		return b.message(f.Message())
	}
	return []byte(words[b.next(len(words))])
}

// padded is a varint with up to nine bytes more than it needs.
func (b *builder) padded(v uint64) []byte {
	out := protowire.AppendVarint(nil, v)
	for range b.next(10) {
		out[len(out)-1] |= 0x80
		out = append(out, 0)
	}
	return out
}
