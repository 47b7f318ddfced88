package load

import (
	"net"
	"slices"

	"golang.org/x/net/http2/hpack"
)

// Traffic is what a run sends, and how its answers are read.
type Traffic struct {
	// Callers is how many there are, from First on; each has an address and a user. InTurn says that they come one
	// after the other; otherwise each request is of a random one.
	First, Callers int
	InTurn         bool

	// fields are the header fields that all requests share.
	fields []hpack.HeaderField
	// varying names the caller: the gRPC message, more header fields (HPACK), or, with http1, the whole request.
	varying       []byte
	varyingIsBody bool
	http1         bool
	judge         func(status, grpcStatus string, data []byte) Verdict
}

// Of returns the same traffic of other callers.
func (t *Traffic) Of(first, callers int) *Traffic {
	other := *t
	other.First, other.Callers = first, callers
	return &other
}

// Patient returns the same traffic of clients that wait for seconds, so that a machine that stalls changes no answer.
func (t *Traffic) Patient() *Traffic {
	other := *t
	other.fields = slices.Clone(t.fields)
	for i, f := range other.fields {
		if f.Name == timeoutHeader {
			other.fields[i].Value = "20S"
		}
	}
	return &other
}

const timeoutHeader = "grpc-timeout"

func (t *Traffic) drive(r *run, c net.Conn, inFlight int, who *callers) (Result, error) {
	if t.http1 {
		return driveH1(r, t, c, inFlight, who)
	}
	return driveH2(r, t, c, inFlight, who)
}
