// Package page makes one page for people from what the metrics say: the state of the gate in
// words, its queues, and what became of the requests of the last minutes.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is where the page has its contents from. All of its functions may be called by
// several goroutines at once, and none waits for a network.
type Source struct {
	// Metrics has all numbers of the page.
	Metrics prometheus.Gatherer
	// Reasons says why the gate is not ready; none if it is.
	Reasons func() []Trouble
	// Degraded says what does not work as it should although the gate is ready.
	Degraded func() []Trouble
	// InForce says what the gate decides by now.
	InForce func() InForce
	// Decisions calls each with every counter of decisions. It is there because it is much
	// cheaper than Metrics: it is called every few seconds.
	Decisions decisions
	// Depths is what is known of the queues now, as cheaply.
	Depths func() []Depth
	// MetricsRoute is the path of the metrics, for a link; empty: a browser can't read them.
	MetricsRoute string
	// Doubts puts into words what a value of the label about of
	// refrakt_gate_envoy_doubts_total means.
	Doubts map[string]string
}

// Trouble is something that is not as it should be.
type Trouble struct {
	// Key is the same as long as the trouble lasts, whatever Text says.
	Key string
	// Queue is the queue that it is about; empty: none, or the only one.
	Queue string
	// Text says what it is. Queues with the same text are shown together.
	Text string
}

// Stopping is the key of the reason that the process was told to stop.
const Stopping = "stopping"

// String returns what it is and of which queue.
func (t Trouble) String() string {
	if t.Queue == "" {
		return t.Text
	}
	return t.Queue + ": " + t.Text
}

// InForce is what the gate decides by.
type InForce struct {
	// Policies are in the order of the file.
	Policies []Policy
	// Queues are the names of the queues in the order of the file.
	Queues []string
	// Words says what the policies mean, one line for each part.
	Words []string
	// LimitsOff says that no rate limit is asked.
	LimitsOff bool
	// Switches are settings that switch something, with what they say now.
	Switches []Switch
}

// Policy is a policy that is in force.
type Policy struct {
	Name    string
	Queue   string // empty: none
	Limited bool   // it has rate limits
}

// checks are the checks that the gate makes for a policy, as the metrics call them.
func (in *InForce) checks(p Policy) (names []string) {
	if p.Limited && !in.LimitsOff {
		names = append(names, "limit")
	}
	if p.Queue != "" {
		names = append(names, "queue")
	}
	return names
}

// Switch is one setting and its value.
type Switch struct{ Name, Value string }

// Depth is what is known of one queue.
type Depth struct {
	Queue   string  // its name
	Pending float64 // jobs that wait; NaN: not known
	Age     float64 // of the oldest of them, in seconds; NaN: not known
}

// Page is an [http.Handler] that serves the page.
type Page struct {
	source  Source
	log     *slog.Logger
	history *history

	mu     sync.Mutex // held while the page is made: one is made at a time
	body   []byte     // made last
	madeAt time.Time
}

// sharedFor is how long one page is answered to all who ask. So the cost does not depend on
// how many ask.
const sharedFor = time.Second

// New returns a page. Its charts are empty until Run.
func New(s Source, log *slog.Logger) *Page {
	return &Page{source: s, log: log, history: newHistory()}
}

// Run keeps what the charts show until ctx ends; it returns nil then.
func (p *Page) Run(ctx context.Context) error {
	tick := time.NewTicker(slotTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			p.tick(now)
		}
	}
}

func (p *Page) tick(now time.Time) {
	p.history.tick(p.source.InForce().Policies, p.source.Decisions, p.source.Depths())
	p.history.since(p.troubles(), now)
}

// troubles is all that is wrong.
func (p *Page) troubles() []Trouble { return append(p.source.Reasons(), p.source.Degraded()...) }

var (
	//go:embed page.html
	document string
	//go:embed page.css
	style string
	//go:embed page.js
	script string

	//nolint:gosec // style and script are constants; everything else is escaped
	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"style":  func() template.CSS { return template.CSS(style) },
		"script": func() template.JS { return template.JS(script) },
		// The script knows by this that an answer is the page, and of its own version.
		"mark": func() string { return hash(style + script) },
	}).Parse(document))

	// The browser runs and loads nothing but what the page itself has.
	security = fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		hash(style), hash(script))
)

// hash is the source expression of Content-Security-Policy for an inline element.
func hash(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// ServeHTTP implements [http.Handler].
func (p *Page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body, err := p.made()
	if err != nil {
		p.log.Error("the page cannot be made", "error", err)
		http.Error(w, "the page cannot be made; the log says why", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", security)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if _, err := w.Write(body); err != nil {
		p.log.Debug("page not written", "error", err)
	}
}

// made returns the page of this moment, or one that is not older than sharedFor.
func (p *Page) made() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.body != nil && now.Sub(p.madeAt) < sharedFor {
		return p.body, nil
	}
	var body bytes.Buffer
	if err := p.write(&body, now); err != nil {
		return nil, err
	}
	p.body, p.madeAt = body.Bytes(), now
	return p.body, nil
}

// write writes the page of this moment.
func (p *Page) write(to *bytes.Buffer, now time.Time) error {
	families, err := p.source.Metrics.Gather()
	if err != nil {
		return fmt.Errorf("gather the metrics: %w", err)
	}
	if err := page.Execute(to, p.view(newMetrics(families), now)); err != nil {
		return fmt.Errorf("fill in the page: %w", err)
	}
	return nil
}
