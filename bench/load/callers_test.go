package load

import (
	"bytes"
	"testing"
)

// TestEachCallerIsNamed: a request names its caller's address and user, and nobody else.
func TestEachCallerIsNamed(t *testing.T) {
	t.Parallel()
	for _, traffic := range []*Traffic{Check("run", 10), RateLimit("minute", 10), Web("/run", 10), Web1("/run", 10)} {
		request := newTemplate(traffic.varying)
		for _, caller := range []int{0, 157, 123_456, MaxCaller} {
			request.patch(caller)
			for _, want := range []string{Address(caller), User(caller)} {
				if !bytes.Contains(request.block, []byte(want)) {
					t.Errorf("no %q in the request of caller %d: %q", want, caller, request.block)
				}
			}
			if len(request.block) != len(traffic.varying) {
				t.Errorf("the request of caller %d has %d bytes, want %d", caller, len(request.block), len(traffic.varying))
			}
		}
	}
}

func TestNamesAreDistinct(t *testing.T) {
	t.Parallel()
	seen := make(map[string]int)
	for caller := 0; caller <= MaxCaller; caller += 1009 {
		for _, name := range []string{Address(caller), User(caller)} {
			if other, ok := seen[name]; ok {
				t.Fatalf("callers %d and %d are both %s", other, caller, name)
			}
			seen[name] = caller
		}
	}
}
