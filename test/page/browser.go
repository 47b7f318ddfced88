// Package page looks at the page of the telemetry port with a real Chromium.
package page

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is one Chromium for all tests.
var browser struct {
	once sync.Once
	ctx  context.Context //nolint:containedctx // chromedp keeps its state in contexts
	err  error
	end  func()
}

// EndBrowser ends Chromium, if a test has started it. Call it from TestMain.
func EndBrowser() {
	if browser.end != nil {
		browser.end()
	}
}

func startBrowser(tb testing.TB) context.Context {
	tb.Helper()
	browser.once.Do(func() {
		path, err := exec.LookPath("chromium")
		if err != nil {
			browser.err = errors.New("chromium is not installed: run `make setup`")
			return
		}
		profile, err := os.MkdirTemp("", "chromium")
		if err != nil {
			browser.err = fmt.Errorf("make a profile: %w", err)
			return
		}
		allocator, endAllocator := chromedp.NewExecAllocator(context.Background(),
			chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.Env("TMPDIR="+profile),
			chromedp.Headless, chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.DisableGPU,
			chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
			chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
			chromedp.WSURLReadTimeout(time.Minute),
		)
		ctx, endBrowser := chromedp.NewContext(allocator)
		browser.ctx = ctx
		browser.end = func() {
			endBrowser()
			endAllocator() // waits for the process
			_ = os.RemoveAll(profile)
		}
		if browser.err = chromedp.Do(ctx); browser.err != nil {
			browser.err = fmt.Errorf("start chromium: %w", browser.err)
		}
	})
	if browser.err != nil {
		tb.Fatal(browser.err)
	}
	return browser.ctx
}

// Tab is a tab of the browser, and what was wrong in it.
type Tab struct {
	ctx context.Context //nolint:containedctx // chromedp keeps its state in contexts

	mu          sync.Mutex
	asked       []string // URLs that were asked for
	wrong       []string // errors and violations of the page's security policy
	navigations int
}

// violations has what the page itself does not tell: which loads its security policy forbade.
const violations = `document.addEventListener("securitypolicyviolation", e => console.error("violates " + e.violatedDirective + ": " + e.blockedURI))`

// Open opens a tab of so many pixels at an address. It ends with the test.
func Open(tb testing.TB, address string, width, height int64) *Tab {
	tb.Helper()
	t := &Tab{}
	ctx, cancel := chromedp.NewContext(startBrowser(tb), chromedp.WithListener(t.hear))
	tb.Cleanup(cancel)
	t.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // it ends with the context of this call
		tb.Fatalf("open a tab: %v", err)
	}
	t.Do(tb,
		call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{}),
		call(cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: violations}),
		call(emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}), // else it would not refresh
		chromedp.EmulateViewport(width, height), chromedp.Navigate(address),
	)
	return t
}

// call is a command of the protocol.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

func (t *Tab) hear(event any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		t.asked = append(t.asked, e.Request.URL)
	case *cdppage.EventFrameNavigated:
		t.navigations++
	case *log.EventEntryAdded:
		t.wrong = append(t.wrong, fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
	case *runtime.EventExceptionThrown:
		t.wrong = append(t.wrong, fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		var text strings.Builder
		for _, arg := range e.Args {
			text.WriteString(arg.Value.String())
		}
		t.wrong = append(t.wrong, text.String())
	}
}

// Do does these things in the tab, in half a minute at most.
func (t *Tab) Do(tb testing.TB, steps ...chromedp.Action[chromedp.Void]) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tb.Fatalf("in the browser: %v", err)
	}
}

// Ask evaluates an expression, which may be a promise.
func Ask[T any](tb testing.TB, t *Tab, expression string) T {
	tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, 30*time.Second)
	defer cancel()
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tb.Fatalf("ask the browser: %v", err)
	}
	return answer
}

// Navigations is how many documents the tab has had.
func (t *Tab) Navigations() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.navigations
}

// Clean fails the test if the page had an error, violated its security policy, or asked for anything but itself.
func (t *Tab) Clean(tb testing.TB, address string) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, wrong := range t.wrong {
		tb.Errorf("the browser reports: %s", wrong)
	}
	for _, url := range t.asked {
		if url != address {
			tb.Errorf("the page asks for %s", url)
		}
	}
}

// Seen is what a person finds on the page.
type Seen struct {
	Headlines []string            `json:"headlines"`
	Troubles  []string            `json:"troubles"`
	Numbers   []Number            `json:"numbers"`
	Queues    []string            `json:"queues"`
	Rows      map[string][]string `json:"rows"`  // of the policies: answer, of the last minutes, since the start
	Names     map[string][]string `json:"names"` // what a number is called, with its series
	Lost      string              `json:"lost"`  // what says that the page is old; empty if it is not
	Old       bool                `json:"old"`
	Text      string              `json:"text"`
}

// Number is a number of the page and the series that it is of.
type Number struct {
	Series string `json:"series"`
	Value  string `json:"value"`
	Text   string `json:"text"`
}

const look = `(() => {
	const texts = (q, of = document) => [...of.querySelectorAll(q)].map(e => e.textContent.trim());
	const lost = document.getElementById("lost");
	const named = [...document.querySelectorAll("figure, dl > div")].map(e => [e.querySelector("figcaption, dt").textContent, [...e.querySelectorAll("[data-metric]")].map(n => n.dataset.metric)]);
	return {
		names: Object.fromEntries(named), headlines: texts(".headline"), troubles: texts(".troubles .text"), queues: texts(".queue h2 .given"), text: document.body.innerText,
		lost: lost.checkVisibility() ? lost.textContent : "", old: getComputedStyle(document.querySelector("main")).opacity < 1,
		numbers: [...document.querySelectorAll("[data-metric]")].filter(e => e.checkVisibility()).map(e => ({series: e.dataset.metric, value: e.dataset.value, text: e.textContent})),
		rows: Object.fromEntries([...document.querySelectorAll("[data-policy]")].map(p => [p.dataset.policy, [...p.querySelectorAll("tbody tr")].map(r => texts("th, td", r).join(" | "))])),
	};
})()`

// Look reads the page as it is.
func (t *Tab) Look(tb testing.TB) Seen {
	tb.Helper()
	return Ask[Seen](tb, t, look)
}

// Refresh has the page refresh itself now and not in some seconds, as when the tab is shown again.
func (t *Tab) Refresh(tb testing.TB) {
	tb.Helper()
	Ask[bool](tb, t, `refresh().then(() => true)`)
}

// prefer has the page see this colour scheme: light or dark.
func prefer(scheme string) chromedp.Action[chromedp.Void] {
	return call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}
