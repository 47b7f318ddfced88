package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// What a client got, in the words of the document.
const (
	accepted = "202 API"
	limited  = "429 gate"
	refused  = "hung up"
)

// player sends one row's requests by one protocol.
type player struct {
	stage    *stage
	protocol string
	wire     e2e.Wire
	words    *strings.Replacer
}

// player returns a player with addresses, a user and tokens that no other row uses.
func (s *stage) player(t *testing.T, g group, a attack, protocol string) *player {
	t.Helper()
	n := s.rows.Add(1)
	user := fmt.Sprintf("user%d", n)
	words := []string{
		"{A}", fmt.Sprintf("198.18.%d.%d", n>>8, n&255), "{B}", fmt.Sprintf("198.19.%d.%d", n>>8, n&255),
		"{N}", fmt.Sprintf("2001:db8:%x:a", n), "{u}", user,
	}
	envoy := s.byHeaders
	if g.tokens {
		envoy = s.byTokens
		token := func(claims map[string]any) string { return "Bearer " + signed(t, s.key, claims) }
		forged := signed(t, s.stranger, map[string]any{"sub": user})
		words = append(words,
			"{token}", token(map[string]any{"sub": user}),
			"{the same user's newer token}", token(map[string]any{"sub": user, "jti": "2"}),
			"{token another}", token(map[string]any{"sub": "not " + user}),
			"{token that is too old}", token(map[string]any{"sub": user, "exp": time.Now().Add(-time.Hour).Unix()}),
			"{token for somebody else}", token(map[string]any{"sub": user, "aud": "another API"}),
			"{token of a stranger}", "Bearer "+forged, "{a stranger}", forged,
			"{token unsigned}", "Bearer "+unsigned(t, user),
		)
	}
	p := &player{stage: s, protocol: protocol, words: strings.NewReplacer(words...)}
	four, fourInSix := envoy.MoreAddrs[0], "127.0.0.1"+envoy.Addr[strings.LastIndex(envoy.Addr, ":"):]
	switch a.from {
	case proxy:
		p.wire = e2e.Wire{From: "127.0.0.1", To: four}
	case client:
		p.wire = e2e.Wire{From: s.nextClient(), To: four}
	case mappedProxy:
		p.wire = e2e.Wire{From: "127.0.0.1", To: fourInSix}
	case mapped:
		p.wire = e2e.Wire{From: s.nextClient(), To: fourInSix}
	case six:
		p.wire = e2e.Wire{From: "::1", To: envoy.MoreAddrs[1]}
	}
	return p
}

// unsigned returns a token with the algorithm none.
func unsigned(t *testing.T, user string) string {
	t.Helper()
	var parts []string
	for _, part := range []map[string]any{
		{"alg": "none", "typ": "JWT"},
		{"iss": "https://auth.refrakt.example", "aud": "refrakt-api", "sub": user, "exp": time.Now().Add(time.Hour).Unix()},
	} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	return strings.Join(parts, ".") + "."
}

// empty takes tokens until none is left.
func (p *player) empty(t *testing.T, headers []string) {
	t.Helper()
	var got string
	for range 3 {
		if got = p.send(t, "POST /run", headers); got == limited {
			return
		}
	}
	t.Fatalf("POST /run with %q: got %s again and again, want %s in the end", headers, got, limited)
}

// victim returns what the victim of a row gets. No other client may have spent its tokens.
func (p *player) victim(t *testing.T) string {
	t.Helper()
	p.wire = e2e.Wire{From: "127.0.0.1", To: p.stage.byTokens.MoreAddrs[0]}
	return p.send(t, "POST /run", []string{"CF-Connecting-IP: {A}", "Authorization: {token}"})
}

func (p *player) try(t *testing.T, a attack) string {
	t.Helper()
	switch {
	case a.text != "":
		return p.http1(t, "POST", a.text)
	case a.fields != nil:
		return p.http2(t, a.fields)
	default:
		return p.send(t, a.request(), a.headers)
	}
}

// send sends a request of this line ("POST /run") by the player's protocol.
func (p *player) send(t *testing.T, line string, headers []string) string {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	if p.protocol == overHTTP1 {
		lines := append([]string{line + " HTTP/1.1", "Host: api.test", "Connection: close", "Content-Length: 0"}, headers...)
		return p.http1(t, method, strings.Join(lines, "\r\n")+"\r\n\r\n")
	}
	fields := []string{":method: " + method, ":scheme: http", ":authority: api.test", ":path: " + path}
	if method == http.MethodConnect {
		fields = []string{":method: " + method, ":authority: " + path}
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		fields = append(fields, strings.ToLower(name)+": "+value)
	}
	return p.http2(t, fields)
}

func (p *player) http1(t *testing.T, method, text string) string {
	t.Helper()
	answers, err := p.wire.HTTP1(t, method, p.words.Replace(text))
	return p.say(t, answers, err)
}

func (p *player) http2(t *testing.T, lines []string) string {
	t.Helper()
	fields := make([]hpack.HeaderField, len(lines))
	for i, line := range lines {
		// A pseudo-header's name begins with a colon too.
		name, value, _ := strings.Cut(line[1:], ": ")
		fields[i] = hpack.HeaderField{Name: line[:1] + name, Value: p.words.Replace(value)}
	}
	answer, err := p.wire.HTTP2(t, fields)
	return p.say(t, []e2e.Response{answer}, err)
}

// say returns what the client got, and from whom. It notes the jobs that the client was told of.
func (p *player) say(t *testing.T, answers []e2e.Response, err error) string {
	t.Helper()
	if errors.Is(err, e2e.ErrRefused) {
		return refused
	}
	if err != nil {
		t.Fatal(err)
	}
	said := make([]string, len(answers))
	for i, r := range answers {
		by := "Envoy"
		switch {
		case r.Header.Get("X-Envoy-Ratelimited") != "":
			by = "gate"
		case r.Header.Get("X-Envoy-Upstream-Service-Time") != "":
			by = "API"
		}
		said[i] = fmt.Sprintf("%d %s", r.Status, by)
		var job struct {
			ID string `json:"job"`
		}
		if r.Status == http.StatusAccepted && json.Unmarshal([]byte(r.Body), &job) == nil {
			p.stage.jobs.Store(job.ID, true)
		}
	}
	return strings.Join(said, ", ")
}
