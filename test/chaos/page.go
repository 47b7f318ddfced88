package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// lookAtPages compares the page of each gate that runs with what the gate says at /readyz. test/page does so in a
// browser, for the states alone; here each fault brings its state about.
func (w *World) lookAtPages(tb testing.TB) {
	tb.Helper()
	for _, g := range w.Gates {
		if !g.Running() {
			continue
		}
		polltest.Until(tb, time.Minute, "the page and /readyz to agree", func() error {
			troubles := troublesOf(tb, g)
			r := g.Get(tb, "/")
			if !slices.Equal(troubles, troublesOf(tb, g)) {
				return errors.New("/readyz changes")
			}
			doc, err := html.Parse(strings.NewReader(r.Body))
			if r.Status != http.StatusOK || err != nil {
				return fmt.Errorf("the page: %d %w", r.Status, err)
			}
			headlines, listed := texts(doc, "headline"), texts(doc, "text")
			if !slices.Equal(listed, troubles) {
				return fmt.Errorf("the page lists %q, /readyz lists %q", listed, troubles)
			}
			if degraded := slices.ContainsFunc(headlines, func(s string) bool { return strings.HasPrefix(s, "Degraded: ") }); degraded != (len(troubles) > 0) {
				return fmt.Errorf("the page says %q, /readyz lists %q", headlines, troubles)
			}
			return nil
		})
	}
}

// troublesOf is what a gate that is ready lists at /readyz.
func troublesOf(tb testing.TB, g *e2e.Gate) []string {
	tb.Helper()
	var answer struct{ Degraded []string }
	if r := g.Get(tb, "/readyz"); r.Status != http.StatusOK || json.Unmarshal([]byte(r.Body), &answer) != nil {
		tb.Fatalf("/readyz: %d %s", r.Status, r.Body)
	}
	return answer.Degraded
}

// texts are those of the elements of a class.
func texts(doc *html.Node, class string) (all []string) {
	for n := range doc.Descendants() {
		for _, a := range n.Attr {
			if a.Key == "class" && slices.Contains(strings.Fields(a.Val), class) {
				all = append(all, n.FirstChild.Data)
			}
		}
	}
	return all
}
