package policy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

// Each block of YAML in docs/policies.md is a file that the gate takes.
func TestDocumentedFiles(t *testing.T) {
	t.Parallel()
	blocks := strings.Split(document(t), "```yaml\n")[1:]
	if len(blocks) < 8 {
		t.Fatalf("found %d blocks", len(blocks))
	}
	for _, block := range blocks {
		content, _, _ := strings.Cut(block, "```")
		if strings.HasPrefix(content, "routes:") { // Envoy's; the tests end to end run it
			continue
		}
		if _, mistakes := policy.Parse([]byte(content)); len(mistakes) > 0 {
			t.Errorf("%v in\n%s", mistakes, content)
		}
	}
}

// The table of shares is what callers hold who add a job each, in turn, while they may.
func TestDocumentedShares(t *testing.T) {
	t.Parallel()
	const places = 40
	text := document(t)
	for _, alpha := range []float64{0.5, 1, 2, 4} {
		row := fmt.Sprintf("| %v |", alpha)
		for _, callers := range []int{1, 2, 10} {
			jobs, pending := make([]int, callers), 0
			for moved := true; moved; {
				moved = false
				for i := range jobs {
					if float64(jobs[i]+1) <= alpha*float64(places-pending-1) {
						jobs[i]++
						pending++
						moved = true
					}
				}
			}
			most, least := jobs[0], jobs[callers-1]
			switch {
			case callers == 1:
				row += fmt.Sprintf(" %d, %d free |", most, places-pending)
			case most == least:
				row += fmt.Sprintf(" %d each, %d free |", most, places-pending)
			default:
				row += fmt.Sprintf(" %d or %d each, %d free |", least, most, places-pending)
			}
		}
		if !strings.Contains(text, "\n"+row+"\n") {
			t.Errorf("docs/policies.md does not have the row\n%s", row)
		}
	}
}

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
