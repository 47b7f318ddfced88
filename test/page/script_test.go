package page

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/telemetry/page"
)

// quiet is a page of a gate that does nothing.
func quiet() *page.Page {
	return page.New(page.Source{
		Metrics: prometheus.NewRegistry(), MetricsRoute: "/metrics",
		Reasons: func() []page.Trouble { return nil }, Degraded: func() []page.Trouble { return nil },
		InForce:   func() page.InForce { return page.InForce{Words: []string{"in words"}} },
		Decisions: func(func(policy, verdict, reason string, n float64)) {}, Depths: func() []page.Depth { return nil },
	}, slog.New(slog.DiscardHandler))
}

// TestScript: the script stands answers that are not the page and a gate of another version, refreshes once at a time, and
// leaves alone what a person has selected or focused.
func TestScript(t *testing.T) {
	t.Parallel()
	mine := quiet()
	var answers atomic.Pointer[http.HandlerFunc]
	answer := func(h http.HandlerFunc) { answers.Store(&h) }
	answer(mine.ServeHTTP)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answers.Load())(w, r) }))
	defer server.Close()
	tab := Open(t, server.URL+"/", 1100, 900)
	Ask[bool](t, tab, `window.changes = 0, new MutationObserver(() => changes++).observe(lost, {childList: true}), true`)

	answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<main>a portal</main>")) })
	tab.Refresh(t)
	tab.Refresh(t)
	seen := tab.Look(t)
	if !strings.HasPrefix(seen.Lost, "Something else than the gate answered. No page since ") || !strings.HasSuffix(seen.Lost, " UTC: what is below is old.") || len(seen.Headlines) != 1 {
		t.Errorf("of what is not the page, it says %q, and shows %q", seen.Lost, seen.Headlines)
	}
	if changes := Ask[int](t, tab, `changes`); changes != 1 {
		t.Errorf("one text was told %d times", changes)
	}

	entered, leave := make(chan struct{}, 10), make(chan struct{})
	answer(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-leave
		mine.ServeHTTP(w, r)
	})
	Ask[bool](t, tab, `window.both = Promise.all([refresh(), refresh()]), document.dispatchEvent(new Event("visibilitychange"))`)
	<-entered
	close(leave)
	Ask[bool](t, tab, `both.then(() => true)`)
	if n := 1 + len(entered); n != 1 {
		t.Errorf("%d refreshes at the same time", n)
	}
	answer(mine.ServeHTTP)

	Ask[bool](t, tab, `document.querySelector("summary").focus(), window.before = document.querySelector("main"), true`)
	tab.Refresh(t)
	if !Ask[bool](t, tab, `before !== document.querySelector("main") && document.activeElement.matches("main summary")`) {
		t.Error("a refresh takes the focus away, or there was none")
	}
	Ask[bool](t, tab, `getSelection().selectAllChildren(document.querySelector("h1")), true`)
	tab.Refresh(t)
	if got := Ask[string](t, tab, `getSelection().toString()`); got != "Healthy" {
		t.Errorf("of what was selected, %q is left", got)
	}
	Ask[bool](t, tab, `answered = new Date(answered - 60000), true`)
	tab.Refresh(t)
	if got := Ask[string](t, tab, `getSelection().toString()`); got != "" {
		t.Errorf("a page with a selection of %q stays old", got)
	}

	before := tab.Navigations()
	answer(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		mine.ServeHTTP(rec, r)
		_, _ = w.Write([]byte(strings.ReplaceAll(rec.Body.String(), `data-page="`, `data-page="2`)))
	})
	tab.Refresh(t)
	polltest.True(t, "a new document of a gate with another version", func() bool { return tab.Navigations() == before+1 })
	tab.Refresh(t)
	if got := tab.Navigations(); got != before+1 {
		t.Errorf("%d navigations, want %d", got, before+1)
	}
}
