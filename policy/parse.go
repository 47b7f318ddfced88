package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	// maxFile is the size of the largest file.
	maxFile = 16 << 20
	// maxNodes bounds the memory that a file needs while it is read: a key, a value or an
	// item of a list takes about 200 bytes. Characters that separate them are counted.
	maxNodes = 750_000
)

// Read reads and parses the file at path. Errors name the file, and line and column if
// they are about a place in it.
func Read(path string) (*File, []error) {
	content, err := readFile(path)
	if err != nil {
		return nil, []error{err}
	}
	f, mistakes := Parse(content)
	if len(mistakes) > 0 {
		errs := make([]error, len(mistakes))
		for i, m := range mistakes {
			separator := ":"
			if m.Line == 0 {
				separator = ": "
			}
			errs[i] = fmt.Errorf("%s%s%w", path, separator, m)
		}
		return nil, errs
	}
	return f, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	file, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	return content, nil
}

// Parse reads a policy file. It returns every mistake, in the order of the file; with
// mistakes, there is no File.
func Parse(content []byte) (*File, []Mistake) {
	root, mistake := load(content)
	if mistake != nil {
		return nil, []Mistake{*mistake}
	}
	p := &parser{}
	p.plain(root)
	if len(p.mistakes) == 0 {
		p.root(root)
	}
	if len(p.mistakes) > 0 {
		return nil, p.list()
	}
	return &p.file, nil
}

// load returns the root of the YAML tree.
func load(content []byte) (*yaml.Node, *Mistake) {
	if len(content) > maxFile {
		return nil, &Mistake{Text: fmt.Sprintf("the file is larger than %d MiB", maxFile>>20)}
	}
	if !utf8.Valid(content) {
		return nil, invalidUTF8(content)
	}
	nodes := 0
	for i, c := range content {
		// A colon alone is a part of a value, such as an address.
		if strings.IndexByte("\n,[{", c) >= 0 || c == ':' && (i+1 == len(content) || strings.IndexByte(" \t\r\n", content[i+1]) >= 0) {
			nodes++
		}
	}
	if nodes > maxNodes {
		return nil, &Mistake{Text: fmt.Sprintf("the file has more than %s keys, values and lines", group(maxNodes))}
	}
	loader, err := yaml.NewLoader(bytes.NewReader(content))
	if err != nil {
		return nil, syntax(err)
	}
	var doc, next yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) {
		return nil, &Mistake{Text: "the file is empty"}
	} else if err != nil {
		return nil, syntax(err)
	}
	if err := loader.Load(&next); err == nil {
		return nil, &Mistake{next.Line, next.Column, "a second document begins; a policy file has one"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
		return nil, &Mistake{Text: "the file is empty"}
	}
	return doc.Content[0], nil
}

func invalidUTF8(content []byte) *Mistake {
	line, column := 1, 1
	for len(content) > 0 {
		r, size := utf8.DecodeRune(content)
		if r == utf8.RuneError && size == 1 {
			break
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
		content = content[size:]
	}
	return &Mistake{line, column, "the file is not UTF-8 here"}
}

// syntax returns what the YAML library says.
func syntax(err error) *Mistake {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return &Mistake{Text: "the file is not YAML"}
	}
	message := e.Message
	if strings.Contains(message, "'") { // it repeats a part of the file
		message = echo(message)
	}
	return &Mistake{e.Mark.Line, e.Mark.Column, "the file is not YAML: " + message}
}

// The keys of each mapping of the file. The types and schema.json have the same ones.
var (
	fileKeys      = []string{"tiers", "queues", "policies", "callers"}
	queueKeys     = []string{"max_pending", "max_age", "reserve", "fair_share", "shadow"}
	reserveKeys   = []string{"tiers", "share"}
	policyKeys    = []string{"match", "queue", "becomes_job", "buckets", "shadow"}
	bucketKeys    = []string{"per", "name", "burst", "rate", "tiered"}
	callerKeys    = []string{"ip", "user", "then"}
	treatmentKeys = []string{"tier"}
)

// parser reads one file.
type parser struct {
	mistakes
	file File
	// factor is the largest of the tiers' factors, and tier the name of that tier.
	factor float64
	tier   string

	patterns []writtenPattern
}

// plain takes down what YAML has and a policy file must not have: it would make the file
// something else than what one reads.
func (p *parser) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		p.add(n, "aliases are not allowed; write the value out")
	case n.Anchor != "":
		p.add(n, "anchors are not allowed; write the value out where it is needed")
	case n.Style&yaml.TaggedStyle != 0 && !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}, n.Tag):
		p.add(n, "the tag %s is not allowed", quote(n.Tag))
	}
	for _, c := range n.Content {
		p.plain(c)
	}
}

func (p *parser) root(n *yaml.Node) {
	sections := map[string]*yaml.Node{}
	at := p.fields(n, "the file", fileKeys, func(key string, v *yaml.Node) { sections[key] = v })
	if !at.ok {
		return
	}
	p.factor = 1
	if v := sections["tiers"]; v != nil {
		p.named(v, "tiers", maxTiers, p.tierOf)
	}
	if v := sections["queues"]; v != nil {
		p.named(v, "queues", maxQueues, p.queue)
	}
	switch v := sections["policies"]; {
	case v == nil:
		p.add(n, "policies: is missing; nothing would be guarded")
	case v.Tag == "!!null" || v.Kind == yaml.MappingNode && len(v.Content) == 0:
		p.add(v, "policies: is empty; nothing would be guarded")
	default:
		p.named(v, "policies", maxPolicies, p.policy)
		p.conflicts()
	}
	if v := sections["callers"]; v != nil {
		p.callers(v)
	}
}

func (p *parser) tierOf(key, v *yaml.Node) {
	name := key.Value
	switch {
	case name == Plain:
		p.add(key, "tiers: plain is the tier of callers without one, with factor 1; give another name")
	case !isName(name):
		p.add(key, "tiers: %s", notName(name))
	}
	factor := p.number(v, quote(name), "from 1 to 1,000 (burst and rate in the file are those of the lowest tier)",
		func(f float64) bool { return f >= minFactor && f <= maxFactor })
	if factor > p.factor {
		p.factor, p.tier = factor, name
	}
	p.file.Tiers = append(p.file.Tiers, Tier{Name: name, Factor: factor})
}

func (p *parser) queue(key, v *yaml.Node) {
	q := Queue{Name: key.Value}
	if err := validQueueName(q.Name); err != nil {
		p.add(key, "queues: %s: %s", quote(q.Name), strings.TrimPrefix(err.Error(), fmt.Sprintf("%q ", q.Name)))
	}
	var reserve *yaml.Node
	at := p.fields(v, quote(q.Name), queueKeys, func(key string, v *yaml.Node) {
		switch key {
		case "max_pending":
			q.MaxPending = int(p.whole(v, key, 0, maxPending))
		case "max_age":
			q.MaxAge = p.duration(v, key, maxAge)
		case "reserve":
			reserve = v
			q.Reserve = p.reserve(v)
		case "fair_share":
			q.FairShare = p.number(v, key, "from 0.01 to 100", func(f float64) bool { return f >= minFairShare && f <= maxFairShare })
		case "shadow":
			q.Shadow = p.yes(v, key)
		}
	})
	if share := q.Reserve.Share; share > 0 {
		switch {
		case q.MaxPending == 0 && q.MaxAge == 0:
			p.add(at.at("reserve"), "reserve: needs max_pending or max_age; it is a share of them")
		case q.MaxPending > 0 && (q.Unreserved() < 1 || q.Unreserved() >= q.MaxPending):
			p.add(reserve, "reserve: share %v of max_pending %d leaves no place for some callers; both sides need one", share, q.MaxPending)
		}
	}
	if share := q.FairShare; share > 0 {
		switch {
		case q.MaxPending == 0:
			p.add(at.at("fair_share"), "fair_share: needs max_pending; it is a share of these places")
		case q.Unreserved() >= 1 && share*float64(q.Unreserved()-1) < 1-rounding:
			p.add(at.at("fair_share"), "fair_share: %v times the places that one job leaves free (%d) is below one job; nobody would be admitted", share, q.Unreserved()-1)
		}
	}
	p.file.Queues = append(p.file.Queues, q)
}

func (p *parser) reserve(n *yaml.Node) Reserve {
	var r Reserve
	at := p.fields(n, "reserve", reserveKeys, func(key string, v *yaml.Node) {
		switch key {
		case "tiers":
			p.items(v, key, maxTiers, func(v *yaml.Node) {
				name, ok := p.text(v, key)
				switch {
				case !ok:
				case slices.Contains(r.Tiers, name):
					p.add(v, "tiers: %s is listed twice", quote(name))
				default:
					p.knownTier(v, key, name)
					r.Tiers = append(r.Tiers, name)
				}
			})
			if v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
				p.add(v, "tiers: is empty; nobody could use the reserve")
			}
		case "share":
			r.Share = p.number(v, key, "above 0 and below 1, such as 0.2", func(f float64) bool { return f > 0 && f < 1 })
		}
	})
	if at.ok {
		p.required(n, "reserve", at, reserveKeys...)
	}
	return r
}

// knownTier takes down the name of a tier that is not in tiers.
func (p *parser) knownTier(n *yaml.Node, what, name string) {
	known := make([]string, len(p.file.Tiers))
	for i, t := range p.file.Tiers {
		known[i] = t.Name
	}
	if !slices.Contains(known, name) {
		p.add(n, "%s: the tier %s is not in tiers%s", what, quote(name), didYouMean(name, known))
	}
}

// required takes down keys that are missing.
func (p *parser) required(n *yaml.Node, what string, at keys, names ...string) {
	for _, key := range names {
		if at.at(key) == nil {
			p.add(n, "%s: %s is missing", what, key)
		}
	}
}

// isName says that a name can be a label of the metrics and a part of a header.
func isName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func notName(s string) string {
	return fmt.Sprintf("%s is not a name: at most %d lower-case letters, digits, _ and -, beginning with a letter", quote(s), maxName)
}
