package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// results are what the clients got: group, row, protocol and version.
type results struct {
	mu   sync.Mutex
	got  map[string]map[string]string // group, row and protocol → version → what
	seen map[string]bool              // versions
}

func (r *results) add(g group, a attack, protocol, version, got string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got, r.seen = map[string]map[string]string{}, map[string]bool{}
	}
	key := resultKey(g, a, protocol)
	if r.got[key] == nil {
		r.got[key] = map[string]string{}
	}
	r.got[key][version] = got
	r.seen[version] = true
}

func resultKey(g group, a attack, protocol string) string {
	return strings.Join([]string{g.title, a.describe(), string(a.from), protocol}, "\n")
}

// cell is what came of a row by one protocol, for each version where they differ.
func (r *results) cell(g group, a attack, protocol string) string {
	if !a.sayable(protocol) {
		return "–"
	}
	byVersion := r.got[resultKey(g, a, protocol)]
	versions := map[string][]string{}
	for _, v := range slices.Sorted(maps.Keys(byVersion)) {
		versions[byVersion[v]] = append(versions[byVersion[v]], v)
	}
	if len(versions) == 1 {
		return slices.Collect(maps.Keys(versions))[0]
	}
	parts := make([]string, 0, len(versions))
	for _, got := range slices.SortedFunc(maps.Keys(versions), func(a, b string) int { return strings.Compare(versions[a][0], versions[b][0]) }) {
		parts = append(parts, strings.Join(versions[got], ", ")+": "+got)
	}
	return strings.Join(parts, "; ")
}

const attacksHead = `# What an attacker gets

` + "`TestNobodyGetsAround`" + ` sends all of these requests to Envoy %s, by both protocols, byte by byte. Each
Envoy has [envoy.yaml](../envoy/envoy.yaml) as it is (but for addresses and timeouts), with the gate and the example API.
This file is what came back; the test compares it with every run. Where the versions differ, each is named. A bucket holds
one token here.

In the columns, "gate" is an answer of the gate and "API" one of the API; a 202 of the API has started a job. "Envoy" is an
answer that Envoy gives itself. "hung up" says that the connection was closed, or the stream reset, without an answer.
Several answers came one after another. A and B are addresses, N is the first half of an IPv6 address, u is a user.
127.0.0.1 is the trusted proxy, over IPv4 or, "by ::ffff", as IPv4 in IPv6; "a client" has another address.
`

// document is docs/attacks.md.
func (r *results) document() string {
	var doc strings.Builder
	fmt.Fprintf(&doc, attacksHead, strings.Join(slices.Sorted(maps.Keys(r.seen)), ", "))
	for _, g := range attacks() {
		manyFrom := slices.ContainsFunc(g.rows, func(a attack) bool { return a.from != g.rows[0].from })
		fmt.Fprintf(&doc, "\n## %s\n\n%s\n\n", g.title, g.intro)
		if manyFrom {
			doc.WriteString("| sent | from | HTTP/1.1 | HTTP/2 |\n|---|---|---|---|\n")
		} else {
			doc.WriteString("| sent | HTTP/1.1 | HTTP/2 |\n|---|---|---|\n")
		}
		for _, a := range g.rows {
			cells := []string{a.describe()}
			if manyFrom {
				cells = append(cells, string(a.from))
			}
			fmt.Fprintf(&doc, "| %s |\n", strings.Join(append(cells, r.cell(g, a, overHTTP1), r.cell(g, a, overHTTP2)), " | "))
		}
	}
	return doc.String()
}

// request is the request's line, without the protocol.
func (a attack) request() string {
	if a.line == "" {
		return "POST /run"
	}
	return a.line
}

var letters = strings.NewReplacer("{A}", "A", "{B}", "B", "{N}", "N", "{u}", "u")

// describe is the row's first column.
func (a attack) describe() string {
	if a.say != "" {
		return letters.Replace(a.say)
	}
	var parts []string
	if a.line != "" {
		parts = append(parts, code(a.line))
	}
	for _, h := range a.headers {
		parts = append(parts, code(strings.TrimRight(h, " ")))
	}
	if len(parts) == 0 {
		return "no header"
	}
	return letters.Replace(strings.Join(parts, ", "))
}

// firstDifference is the first line that differs, as it was wanted and as it is.
func firstDifference(want, got string) string {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range gots {
		if i >= len(wants) || gots[i] != wants[i] {
			return fmt.Sprintf("want %s\ngot  %s", strings.Join(wants[min(i, len(wants)):min(i+1, len(wants))], ""), gots[i])
		}
	}
	return "it ends early"
}
