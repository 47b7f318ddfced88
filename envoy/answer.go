package envoy

import (
	"math"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Answer is a CheckResponse on the wire. It never changes.
type Answer struct {
	mem.SliceBuffer               // the bytes
	slice           [1]mem.Buffer // the answer itself, as gRPC wants it
	room            [472]byte     // for the bytes, if there are not more
}

// Answer returns the reply on the wire: what the generated code makes of [Reply.Response].
// The order of the metadata may differ. The reply may be used again.
func (r *Reply) Answer() *Answer {
	a := new(Answer)
	a.SliceBuffer = r.encode(a.room[:0])
	a.slice[0] = a
	return a
}

// The fields that are written, by message.
const (
	responseStatus   = 1
	responseDenied   = 2
	responseOK       = 3
	responseMetadata = 4

	statusCode = 1

	deniedStatus  = 1
	deniedHeaders = 2
	deniedBody    = 3

	okHeaders = 6

	optionHeader = 1
	optionAction = 3

	structFields = 1

	valueNumber = 2
	valueString = 3
	valueBool   = 4
)

// Template is a reply that is encoded ahead, for replies that add headers and metadata to
// it. It never changes.
type Template struct {
	reply                  Reply
	status, http, metadata []byte // the content of each part
}

// Template returns a template of the reply, which must not change after that.
func (r *Reply) Template() *Template {
	return &Template{*r, r.appendStatus(nil), r.appendHTTP(nil), r.appendMetadata(nil)}
}

func (r *Reply) encode(b []byte) []byte {
	http := protowire.Number(responseOK)
	if r.Status != 0 {
		http = responseDenied
	}
	b, at := begin(b, responseStatus)
	b = end(r.appendStatus(b), at)
	b, at = begin(b, http)
	b = end(r.appendHTTP(b), at)
	if len(r.metadata) > 0 || r.base != nil && len(r.base.metadata) > 0 {
		b, at = begin(b, responseMetadata)
		b = end(r.appendMetadata(b), at)
	}
	return b
}

// appendStatus appends the content of the Status.
func (r *Reply) appendStatus(b []byte) []byte {
	switch {
	case r.base != nil:
		return append(b, r.base.status...)
	case r.Status != 0:
		return appendNumber(b, statusCode, uint64(codes.PermissionDenied))
	default:
		return b
	}
}

// appendHTTP appends the content of the OkHttpResponse or DeniedHttpResponse.
func (r *Reply) appendHTTP(b []byte) []byte {
	headers := protowire.Number(okHeaders)
	if r.Status != 0 {
		headers = deniedHeaders
	}
	switch {
	case r.base != nil:
		b = append(b, r.base.http...)
	case r.Status != 0:
		var at int
		b, at = begin(b, deniedStatus)
		b = end(appendNumber(b, statusCode, uint64(r.Status)), at)
		if r.Body != "" {
			b = appendText(b, deniedBody, r.Body)
		}
	}
	for _, h := range r.headers {
		b = appendOption(b, headers, h.name, r.values[h.from:h.to])
	}
	return b
}

// appendMetadata appends the content of the Struct.
func (r *Reply) appendMetadata(b []byte) []byte {
	if r.base != nil {
		b = append(b, r.base.metadata...)
	}
	for _, d := range r.metadata {
		b = appendDatum(b, d)
	}
	return b
}

func appendOption(b []byte, num protowire.Number, name string, value []byte) []byte {
	b, option := begin(b, num)
	b, header := begin(b, optionHeader)
	if name != "" {
		b = appendText(b, headerKey, name)
	}
	if len(value) > 0 {
		b = appendText(b, headerValue, text(value))
	}
	b = end(b, header)
	b = appendNumber(b, optionAction, uint64(overwrite))
	return end(b, option)
}

// appendDatum appends an entry of the map of a Struct.
func appendDatum(b []byte, d datum) []byte {
	b, entry := begin(b, structFields)
	b = appendText(b, entryKey, d.key)
	b, value := begin(b, entryValue)
	switch d.kind {
	case isFlag:
		b = appendNumber(b, valueBool, protowire.EncodeBool(d.flag))
	case isNumber:
		b = protowire.AppendTag(b, valueNumber, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, math.Float64bits(d.number))
	default:
		b = appendText(b, valueString, d.text)
	}
	return end(end(b, value), entry)
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendNumber(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// begin begins a message in the field num. at is where its content begins.
func begin(b []byte, num protowire.Number) (out []byte, at int) {
	b = append(protowire.AppendTag(b, num, protowire.BytesType), 0) // most lengths take a byte
	return b, len(b)
}

// end ends the message whose content begins at at: it writes the length before it.
func end(b []byte, at int) []byte {
	n := len(b) - at
	if more := protowire.SizeVarint(uint64(n)) - 1; more > 0 {
		b = slices.Grow(b, more)[:len(b)+more]
		copy(b[at+more:], b[at:at+n])
	}
	protowire.AppendVarint(b[:at-1], uint64(n))
	return b
}
