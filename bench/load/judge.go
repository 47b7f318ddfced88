package load

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// judgeCheck reads a CheckResponse: code 0 is allowed, otherwise the HTTP status of the denial says why.
func judgeCheck(status, grpcStatus string, data []byte) Verdict {
	m, ok := message(status, grpcStatus, data)
	if !ok {
		return Failed
	}
	rpc, ok := field(m, 1)
	if !ok {
		return Failed
	}
	if code, _ := number(rpc, 1); code == 0 {
		return Allowed
	}
	denied, _ := field(m, 2)
	http, _ := field(denied, 1)
	switch code, _ := number(http, 1); code {
	case 429:
		return Limited
	case 503:
		return Shed
	}
	return Failed
}

// judgeRateLimit reads a RateLimitResponse: overall_code 1 is OK, 2 is over the limit.
func judgeRateLimit(status, grpcStatus string, data []byte) Verdict {
	m, ok := message(status, grpcStatus, data)
	if !ok {
		return Failed
	}
	switch code, _ := number(m, 1); code {
	case 1:
		return Allowed
	case 2:
		return Limited
	}
	return Failed
}

// judgeWeb reads the status of an HTTP answer.
func judgeWeb(status, _ string, _ []byte) Verdict {
	switch code, _ := strconv.Atoi(status); {
	case code >= 200 && code < 300:
		return Allowed
	case code == 429:
		return Limited
	case code == 503:
		return Shed
	}
	return Failed
}

// message is the one message of a gRPC answer that is OK.
func message(status, grpcStatus string, data []byte) ([]byte, bool) {
	const prefix = 5
	if status != "200" || grpcStatus != "0" || len(data) < prefix {
		return nil, false
	}
	return data[prefix:], true
}

// field is the first field with a number, if its wire type is that of messages.
func field(m []byte, want protowire.Number) ([]byte, bool) {
	v, ok := find(m, want, protowire.BytesType)
	if !ok {
		return nil, false
	}
	b, n := protowire.ConsumeBytes(v)
	return b, n >= 0
}

// number is the first field with a number, if its wire type is that of integers.
func number(m []byte, want protowire.Number) (uint64, bool) {
	v, ok := find(m, want, protowire.VarintType)
	if !ok {
		return 0, false
	}
	i, n := protowire.ConsumeVarint(v)
	return i, n >= 0
}

// find is what follows the tag of a field.
func find(m []byte, want protowire.Number, kind protowire.Type) ([]byte, bool) {
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return nil, false
		}
		m = m[n:]
		if num == want && typ == kind {
			return m, true
		}
		if n = protowire.ConsumeFieldValue(num, typ, m); n < 0 {
			return nil, false
		}
		m = m[n:]
	}
	return nil, false
}
