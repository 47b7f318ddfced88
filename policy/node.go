package policy

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// These read the nodes of a file. What is not as it should be is a mistake, and the value
// is the zero value then.

// kind names what a node is, as mistakes say it.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "empty"
	default:
		return quote(n.Value)
	}
}

// keys are the nodes of the keys that a mapping has, in the order of the known ones. ok says
// that it is a mapping.
type keys struct {
	ok    bool
	known []string
	nodes [8]*yaml.Node
}

// at returns the node of a known key, or nil if the mapping has no such key.
func (k *keys) at(key string) *yaml.Node { return k.nodes[slices.Index(k.known, key)] }

// fields walks a mapping whose keys are known, and returns the nodes of its keys.
func (m *mistakes) fields(n *yaml.Node, what string, known []string, value func(key string, v *yaml.Node)) keys {
	at := keys{known: known}
	if n.Kind != yaml.MappingNode {
		m.add(n, "%s: %s is not a mapping with %s", what, kind(n), either(known))
		return at
	}
	at.ok = true
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], n.Content[i+1]
		k := slices.Index(known, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			m.add(key, "%s: a key is %s; known are %s", what, kind(key), strings.Join(known, ", "))
		case k < 0:
			m.add(key, "%s: unknown key %s%s (known are %s)", what, quote(key.Value), didYouMean(key.Value, known), strings.Join(known, ", "))
		case at.nodes[k] != nil:
			m.add(key, "%s: %s is already in line %d", what, key.Value, at.nodes[k].Line)
		default:
			at.nodes[k] = key
			value(key.Value, v)
		}
	}
	return at
}

// named walks a mapping from names that the file chooses, at most limit.
func (m *mistakes) named(n *yaml.Node, what string, limit int, value func(key, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		m.add(n, "%s: %s is not a mapping from names", what, kind(n))
		return
	}
	if count := len(n.Content) / 2; count > limit {
		m.add(n, "%s: there are %s, more than %s", what, group(int64(count)), group(int64(limit)))
		return
	}
	at := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], n.Content[i+1]
		name, ok := m.text(key, what)
		if !ok {
			continue
		}
		if first, twice := at[name]; twice {
			m.add(key, "%s: %s is already in line %d", what, quote(name), first.Line)
			continue
		}
		at[name] = key
		value(key, v)
	}
}

// items walks a list of at most limit items; 0 is no limit.
func (m *mistakes) items(n *yaml.Node, what string, limit int, item func(v *yaml.Node)) {
	switch {
	case n.Kind != yaml.SequenceNode:
		m.add(n, "%s: %s is not a list", what, kind(n))
	case limit > 0 && len(n.Content) > limit:
		m.add(n, "%s: there are %s, more than %s", what, group(int64(len(n.Content))), group(int64(limit)))
	default:
		for _, v := range n.Content {
			item(v)
		}
	}
}

// text reads a string that is not empty.
func (m *mistakes) text(n *yaml.Node, what string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		m.add(n, "%s: %s is not a text", what, kind(n))
	case n.Tag != "!!str":
		m.add(n, "%s: %s is not a text; write it in quotes", what, echo(n.Value))
	case n.Value == "":
		m.add(n, "%s: is empty", what)
	default:
		return n.Value, true
	}
	return "", false
}

// yes reads true or false.
func (m *mistakes) yes(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		m.add(n, "%s: %s is neither true nor false", what, kind(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// whole reads a whole number.
func (m *mistakes) whole(n *yaml.Node, what string, low, high int64) int64 {
	if n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!float") {
		if v, err := strconv.ParseInt(n.Value, 10, 64); err == nil && v >= low && v <= high {
			return v
		}
	}
	m.add(n, "%s: %s is not a whole number from %s to %s", what, kind(n), group(low), group(high))
	return 0
}

// number reads a number. The bounds are part of the mistake's text: "from 1 to 1,000".
func (m *mistakes) number(n *yaml.Node, what, bounds string, valid func(float64) bool) float64 {
	if n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!float") {
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsNaN(v) && valid(v) {
			return v
		}
	}
	m.add(n, "%s: %s is not a number %s", what, kind(n), bounds)
	return 0
}

// duration reads a time with a unit.
func (m *mistakes) duration(n *yaml.Node, what string, high time.Duration) time.Duration {
	d, err := time.ParseDuration(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null" || err != nil && n.Tag != "!!int":
		m.add(n, "%s: %s is not a time with a unit, such as 90s, 10m or 2h", what, kind(n))
	case err != nil:
		m.add(n, "%s: %s has no unit; write %[2]ss for seconds or %[2]sm for minutes", what, echo(n.Value))
	case d < 0 || d > high:
		m.add(n, "%s: %s is not a time from 0s to %s", what, quote(n.Value), short(high))
	default:
		return d
	}
	return 0
}

// group writes a number with a comma between thousands.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a duration without units that are 0: 10m, not 10m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
