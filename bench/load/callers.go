package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
)

// MaxCaller is the highest number of a caller.
const MaxCaller = 156*156*156 - 1

// Where a request names its caller. Both have a fixed width, so that one caller's request can become another's.
const (
	anyAddress = "100.100.100.100"
	anyUser    = "user-0000000"
)

// Address is the address of a caller. No gate takes one of these addresses for a trusted proxy's.
func Address(caller int) string {
	return fmt.Sprintf("100.%d.%d.%d", 100+caller/156/156%156, 100+caller/156%156, 100+caller%156)
}

// User is the user of a caller.
func User(caller int) string { return fmt.Sprintf("user-%07d", caller) }

// template is a request in which the caller can be changed.
type template struct {
	block            []byte
	addresses, users []int // where they are
}

func newTemplate(block []byte) template {
	return template{bytes.Clone(block), places(block, anyAddress), places(block, anyUser)}
}

func places(block []byte, what string) (at []int) {
	for i := 0; ; {
		n := bytes.Index(block[i:], []byte(what))
		if n < 0 {
			return at
		}
		at = append(at, i+n)
		i += n + len(what)
	}
}

// patch makes the request that of a caller.
func (t template) patch(caller int) {
	for _, at := range t.addresses {
		for i, n := 12, caller; i >= 4; i, n = i-4, n/156 {
			digits(t.block[at+i:at+i+3], 100+n%156)
		}
	}
	for _, at := range t.users {
		digits(t.block[at+len("user-"):at+len(anyUser)], caller)
	}
}

// digits writes the last digits of n.
func digits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i, n = i-1, n/10 {
		b[i] = '0' + byte(n%10)
	}
}

// callers picks whose request is sent next on one connection.
type callers struct {
	first, n int
	turn     *atomic.Int64 // of all connections; nil: at random
	random   *rand.PCG
}

func newCallers(t *Traffic, r *run) *callers {
	c := &callers{first: t.First, n: t.Callers, random: rand.NewPCG(rand.Uint64(), rand.Uint64())}
	if t.InTurn {
		c.turn = &r.turn
	}
	return c
}

func (c *callers) next() int {
	if c.turn != nil {
		return c.first + int((c.turn.Add(1)-1)%int64(c.n))
	}
	return c.first + int(c.random.Uint64()%uint64(c.n))
}
