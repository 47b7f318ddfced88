package envoy

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

var errMalformed = errors.New("the CheckRequest is not valid protobuf")

// reader reads a CheckRequest from the wire. It looks into the messages and fields that
// [Parse] uses, and passes over all others. The generated code says what the wire means,
// and tests hold the reader to it:
//
//   - The last one of several values of a field counts; messages merge; headers are appended.
//   - A field of another wire type than the schema's is an unknown field.
//   - The last entry of a map with the same key counts. A key or value that an entry lacks
//     is empty.
//   - What the generated code accepts is accepted, and read in the same way.
//
// The reader accepts more than the generated code does: text that is not UTF-8, and
// messages that are malformed inside a field that the gate does not use. Such a request
// gets a verdict; the generated code makes it a gRPC error, and Envoy may let the request
// pass then. Text that is not UTF-8 can also come in raw_value, so all that reads headers
// expects it.
//
// Each function reads one kind of message, and returns false if it is malformed. They call
// one another as deep as the schema is. The text that they keep is that of the wire, not a
// copy.
type reader struct {
	method, path, policy string

	addressField int    // the field of the peer's Address that is set, or 0
	addressText  string // of its SocketAddress

	raw, plain []line         // never more than maxLines
	places     map[string]int // by name, in plain; empty while those are few
	tooMany    bool

	jwt *structpb.Struct
}

// The fields that are read, by message.
const (
	requestAttributes = 1

	attributesSource     = 1
	attributesRequest    = 4
	attributesExtensions = 10
	attributesMetadata   = 11

	peerAddress = 1

	// The address is one of these.
	socketAddress   = 1
	pipeAddress     = 2
	internalAddress = 3

	socketAddressAddress = 2

	requestHTTP = 2

	httpMethod    = 2
	httpHeaders   = 3
	httpPath      = 4
	httpHeaderMap = 13

	headerMapHeaders = 1

	headerKey      = 1
	headerValue    = 2
	headerRawValue = 3

	metadataFilter = 1

	entryKey   = 1
	entryValue = 2
)

// reset forgets the request that was read, and keeps the memory of its lines.
func (r *reader) reset() {
	clear(r.raw)
	clear(r.plain)
	clear(r.places)
	*r = reader{raw: r.raw[:0], plain: r.plain[:0], places: r.places}
}

// read reads a CheckRequest into r, which must be reset.
func (r *reader) read(wire []byte) (Request, error) {
	if !r.checkRequest(wire) {
		return Request{}, errMalformed
	}
	out := Request{
		Method:         r.method,
		Path:           r.path,
		Policy:         r.policy,
		Peer:           peer(r.addressField == pipeAddress, r.addressText),
		TooManyHeaders: r.tooMany,
		jwt:            r.jwt,
	}
	switch {
	case r.tooMany:
	case len(r.raw) > 0:
		out.raw, out.lines = true, r.raw
	default:
		out.lines = r.plain
	}
	return out, nil
}

func (r *reader) checkRequest(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 || num == requestAttributes && !r.attributes(v) {
			return false
		}
		b = b[n:]
	}
	return true
}

func (r *reader) attributes(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		ok := n >= 0
		switch num {
		case attributesSource:
			ok = r.peer(v)
		case attributesRequest:
			ok = r.request(v)
		case attributesExtensions:
			ok = r.extension(v)
		case attributesMetadata:
			ok = r.metadata(v)
		}
		if !ok {
			return false
		}
		b = b[n:]
	}
	return true
}

func (r *reader) peer(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 || num == peerAddress && !r.address(v) {
			return false
		}
		b = b[n:]
	}
	return true
}

// address reads an Address. The last of its fields counts; two socket addresses in a row
// merge.
func (r *reader) address(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 {
			return false
		}
		switch num {
		case socketAddress, pipeAddress, internalAddress:
			if int(num) != r.addressField {
				r.addressField, r.addressText = int(num), ""
			}
			if num == socketAddress && !r.socketAddress(v) {
				return false
			}
		}
		b = b[n:]
	}
	return true
}

func (r *reader) socketAddress(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 {
			return false
		}
		if num == socketAddressAddress {
			r.addressText = text(v)
		}
		b = b[n:]
	}
	return true
}

func (r *reader) request(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 || num == requestHTTP && !r.http(v) {
			return false
		}
		b = b[n:]
	}
	return true
}

func (r *reader) http(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		ok := n >= 0
		switch num {
		case httpMethod:
			r.method = text(v)
		case httpPath:
			r.path = text(v)
		case httpHeaders:
			ok = r.plainHeader(v)
		case httpHeaderMap:
			ok = r.headerMap(v)
		}
		if !ok {
			return false
		}
		b = b[n:]
	}
	return true
}

func (r *reader) headerMap(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 || num == headerMapHeaders && !r.rawHeader(v) {
			return false
		}
		b = b[n:]
	}
	return true
}

func (r *reader) rawHeader(b []byte) bool {
	var name, value, raw []byte
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 {
			return false
		}
		switch num {
		case headerKey:
			name = v
		case headerValue:
			value = v
		case headerRawValue:
			raw = v
		}
		b = b[n:]
	}
	if len(r.raw) == maxLines {
		r.tooMany = true
		return true
	}
	r.raw = append(r.raw, rawLine(text(name), text(value), text(raw)))
	return true
}

// plainHeader reads an entry of the map headers.
func (r *reader) plainHeader(b []byte) bool {
	name, value, ok := entry(b)
	if !ok {
		return false
	}
	place, known := r.place(text(name))
	switch {
	case known:
		r.plain[place].value = text(value)
	case len(r.plain) == maxLines:
		r.tooMany = true
	default:
		r.plain = append(r.plain, line{text(name), text(value)})
		if len(r.places) > 0 {
			r.places[text(name)] = place
		}
	}
	return true
}

// fewLines is the number of names that are compared one by one.
const fewLines = 32

// place returns the place of a name in plain or, if the name is not known, the next free
// one.
func (r *reader) place(name string) (place int, known bool) {
	if len(r.plain) <= fewLines {
		i := slices.IndexFunc(r.plain, func(l line) bool { return l.name == name })
		if i < 0 {
			return len(r.plain), false
		}
		return i, true
	}
	if len(r.places) == 0 {
		if r.places == nil {
			r.places = make(map[string]int, maxLines)
		}
		for i, l := range r.plain {
			r.places[l.name] = i
		}
	}
	if place, known = r.places[name]; !known {
		place = len(r.plain)
	}
	return place, known
}

// extension reads an entry of the map context_extensions.
func (r *reader) extension(b []byte) bool {
	key, value, ok := entry(b)
	if ok && string(key) == PolicyExtension {
		r.policy = text(value)
	}
	return ok
}

func (r *reader) metadata(b []byte) bool {
	for len(b) > 0 {
		num, v, n := field(b)
		if n < 0 || num == metadataFilter && !r.filterMetadata(v) {
			return false
		}
		b = b[n:]
	}
	return true
}

// filterMetadata reads an entry of the map filter_metadata. The generated code decodes its
// value, if that is the payload of a verified token.
func (r *reader) filterMetadata(b []byte) bool {
	key, _, ok := entry(b)
	if !ok || string(key) != jwtNamespace {
		return ok
	}
	r.jwt = new(structpb.Struct)
	for len(b) > 0 {
		num, v, n := field(b)
		if num == entryValue && (proto.UnmarshalOptions{Merge: true}).Unmarshal(v, r.jwt) != nil {
			return false
		}
		b = b[n:]
	}
	return true
}
