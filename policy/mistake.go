package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Mistake is one thing that is wrong with a policy file.
type Mistake struct {
	// Line and Column say where; Line is 0 if it is about the whole file.
	Line, Column int
	Text         string
}

func (m Mistake) Error() string {
	if m.Line == 0 {
		return m.Text
	}
	return fmt.Sprintf("%d:%d: %s", m.Line, m.Column, m.Text)
}

const (
	// maxMistakes is how many mistakes are listed. The others are counted.
	maxMistakes = 20
	// maxTexts is how many mistakes get a text. It bounds what a file of nothing but
	// mistakes costs.
	maxTexts = 1_000
)

// mistakes collects what is wrong with a file.
type mistakes []Mistake

// add takes down a mistake at a node. Values in the text are cut; see [quote].
func (m *mistakes) add(n *yaml.Node, format string, args ...any) {
	if len(*m) >= maxTexts {
		*m = append(*m, Mistake{})
		return
	}
	*m = append(*m, Mistake{n.Line, n.Column, fmt.Sprintf(format, args...)})
}

// list returns the mistakes in the order of the file.
func (m mistakes) list() []Mistake {
	slices.SortStableFunc(m[:min(len(m), maxTexts)], func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(m) - maxMistakes; more > 0 {
		m = append(m[:maxMistakes:maxMistakes], Mistake{Text: fmt.Sprintf("and %d more", more)})
	}
	return m
}

// maxEcho is the length of the longest value that a mistake repeats.
const maxEcho = 40

// echo returns a value as a mistake repeats it: cut if it is long.
func echo(s string) string {
	if len(s) <= maxEcho {
		return s
	}
	return strings.ToValidUTF8(s[:maxEcho], "") + "…"
}

// quote returns a value in quotes, cut if it is long.
func quote(s string) string { return strconv.Quote(echo(s)) }

// didYouMean suggests the known word that is at most two changes away from word.
func didYouMean(word string, known []string) string {
	best, fewest := "", 3
	for _, k := range known {
		if d := distance(word, k); d < fewest {
			best, fewest = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the number of letters to insert, remove or change (Levenshtein), or a large
// number if the lengths alone differ by more than 2.
func distance(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// either lists words: "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
