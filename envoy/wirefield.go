package envoy

import (
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// The parts of a message on the wire, whatever the message.

// entry reads an entry of a map. If the entry has several values, the last one counts.
func entry(b []byte) (key, value []byte, ok bool) {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 {
			return nil, nil, false
		}
		switch num {
		case entryKey:
			key = v
		case entryValue:
			value = v
		}
		b = b[n:]
	}
	return key, value, true
}

// field returns the number and the content of the first field of b, and the length of the
// whole field. All fields that are read have a length before their content. Each field
// without one is passed over: its number is returned as 0. A negative length says that b
// is malformed.
func field(b []byte) (num protowire.Number, content []byte, n int) {
	if len(b) >= 2 && b[0] < 0x80 && b[1] < 0x80 { // a tag and a length of one byte each: the most by far
		num, typ := protowire.DecodeTag(uint64(b[0]))
		if end := 2 + int(b[1]); num > 0 && typ == protowire.BytesType && end <= len(b) {
			return num, b[2:end], end
		}
	}
	num, typ, tag := protowire.ConsumeTag(b)
	switch {
	case tag < 0 || num > protowire.MaxValidNumber:
		return 0, nil, -1
	case typ != protowire.BytesType:
		n = protowire.ConsumeFieldValue(num, typ, b[tag:])
		num = 0
	default:
		content, n = protowire.ConsumeBytes(b[tag:])
	}
	if n < 0 {
		return 0, nil, -1
	}
	return num, content, tag + n
}

// text is b as a string, without a copy: b must not change as long as the text is used.
func text(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // see above
}
