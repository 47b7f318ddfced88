package check

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompare: what is above its bound, has none, or was not measured is wrong.
func TestCompare(t *testing.T) {
	t.Parallel()
	b := Bounds{"allocations": {"allowed": 70, "refused": 60}, "calls": {"allowed": 0.2}}
	for name, tt := range map[string]struct {
		findings []Finding
		want     []string
	}{
		"kept": {[]Finding{one("allocations", "allowed", 70), one("allocations", "refused", 59.9), one("calls", "allowed", 0)}, nil},
		"exceeded": {
			[]Finding{one("allocations", "allowed", 70.1), one("allocations", "refused", 0), one("calls", "allowed", math.NaN())},
			[]string{"allocations, allowed: 70.1 is above the bound 70.0", "calls, allowed: NaN is above the bound 0.200"},
		},
		"not measured": {
			[]Finding{one("allocations", "refused", 0)},
			[]string{"allocations, allowed: there is a bound, but nothing was measured", "calls, allowed: there is a bound, but nothing was measured"},
		},
		"no bound": {
			[]Finding{one("allocations", "allowed", 0), one("allocations", "refused", 0), one("calls", "allowed", 0), one("calls", "/run", 0)},
			[]string{"calls, /run: there is no bound"},
		},
	} {
		var out strings.Builder
		if got := b.Compare(&out, tt.findings); !slices.Equal(got, tt.want) {
			t.Errorf("%s: wrong is %q, want %q", name, got, tt.want)
		}
		if exceeded := strings.Count(out.String(), "EXCEEDED"); name == "exceeded" && exceeded != 2 || name == "kept" && exceeded != 0 {
			t.Errorf("%s: %d lines say EXCEEDED:\n%s", name, exceeded, out.String())
		}
	}
}

// TestCommittedBounds: the committed file can be read; a broken one is an error.
func TestCommittedBounds(t *testing.T) {
	t.Parallel()
	b, err := ReadBounds("../bounds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if wrong := b.Compare(io.Discard, nil); len(wrong) < 15 {
		t.Errorf("the file has %d bounds only", len(wrong))
	}
	broken := filepath.Join(t.TempDir(), "bounds.yaml")
	if err := os.WriteFile(broken, []byte("allocations: 70\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBounds(broken); err == nil {
		t.Error("a bound without a case was read")
	}
}
