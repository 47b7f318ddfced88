package policy

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

func (p *parser) policy(key, v *yaml.Node) {
	pol := Policy{Name: key.Value}
	switch pol.Name {
	case "none", "unknown", "probe":
		p.add(key, "policies: the name %s is reserved; give another name", pol.Name)
	default:
		if !isName(pol.Name) {
			p.add(key, "policies: %s", notName(pol.Name))
		}
	}
	var buckets []*yaml.Node
	at := p.fields(v, quote(pol.Name), policyKeys, func(key string, v *yaml.Node) {
		switch key {
		case "match":
			p.items(v, key, maxMatch, func(v *yaml.Node) {
				if pattern, ok := p.pattern(v); ok {
					pol.Match = append(pol.Match, pattern)
				}
			})
		case "queue":
			pol.Queue = p.queueOf(v)
		case "becomes_job":
			pol.BecomesJob = p.yes(v, key)
		case "buckets":
			p.items(v, key, maxBuckets, func(v *yaml.Node) {
				if b, ok := p.bucket(v); ok {
					buckets = append(buckets, v)
					pol.Buckets = append(pol.Buckets, b)
				}
			})
			if v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
				p.add(v, "buckets: is empty; leave it out, or say how much a caller may use")
			}
		case "shadow":
			pol.Shadow = p.shadow(v)
		}
	})
	switch {
	case !at.ok:
	case at.at("buckets") == nil && at.at("queue") == nil:
		p.add(key, "%s: has neither buckets nor a queue; it would limit nothing", quote(pol.Name))
	case at.at("queue") == nil && pol.BecomesJob:
		p.add(at.at("becomes_job"), "becomes_job: needs queue: the queue that the job is added to")
	}
	p.distinct(pol, buckets)
	p.file.Policies = append(p.file.Policies, pol)
}

func (p *parser) queueOf(n *yaml.Node) string {
	name, ok := p.text(n, "queue")
	if !ok {
		return ""
	}
	known := make([]string, len(p.file.Queues))
	for i, q := range p.file.Queues {
		known[i] = q.Name
		if q.Name == name {
			return name
		}
	}
	p.add(n, "queue: %s is not in queues%s", quote(name), didYouMean(name, known))
	return ""
}

func (p *parser) shadow(n *yaml.Node) Shadow {
	switch {
	case n.Tag == "!!bool":
		all := strings.EqualFold(n.Value, "true")
		return Shadow{Limits: all, Queue: all}
	case n.Tag == "!!str" && n.Value == "limits":
		return Shadow{Limits: true}
	case n.Tag == "!!str" && n.Value == "queue":
		return Shadow{Queue: true}
	}
	p.add(n, "shadow: %s is none of false, true, limits, queue", kind(n))
	return Shadow{}
}

// bucket reads a bucket; ok says that it has no mistakes.
func (p *parser) bucket(n *yaml.Node) (b Bucket, ok bool) {
	before := len(p.mistakes)
	b.Tiered = true
	var rate *yaml.Node
	at := p.fields(n, "buckets", bucketKeys, func(key string, v *yaml.Node) {
		switch key {
		case "per":
			switch b.Per = Per(v.Value); b.Per {
			case PerIP, PerUser, PerAll:
			default:
				p.add(v, "per: %s is none of ip, user, all", kind(v))
			}
		case "name":
			b.Name, _ = p.text(v, key)
			if b.Name != "" && !isName(b.Name) {
				p.add(v, "name: %s", notName(b.Name))
			}
		case "burst":
			b.Burst = p.whole(v, key, 1, maxBurst)
		case "rate":
			rate = v
			b.Rate = p.rate(v)
		case "tiered":
			b.Tiered = p.yes(v, key)
		}
	})
	if !at.ok {
		return b, false
	}
	p.required(n, "buckets", at, "per", "burst", "rate")
	if len(p.mistakes) == before {
		p.rateBounds(rate, b)
	}
	return b, len(p.mistakes) == before
}

var units = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day}

func (p *parser) rate(n *yaml.Node) Rate {
	count, unit, _ := strings.Cut(n.Value, "/")
	per, ok := units[unit]
	c, err := strconv.ParseUint(count, 10, 63)
	switch {
	case n.Kind != yaml.ScalarNode || !ok || err != nil && !isDigits(count) || strings.HasPrefix(count, "+"):
		p.add(n, "rate: %s is not a rate, such as 6/m: N/s, N/m, N/h or N/d with a whole number N", kind(n))
	case err != nil || c > maxPerMinute*uint64(day/time.Minute):
		p.add(n, "rate: %s is above %s a minute", kind(n), group(maxPerMinute))
	case c == 0:
		p.add(n, "rate: %s never fills the bucket; the lowest rate is 1/d", kind(n))
	default:
		return Rate{Count: int64(c), Unit: per}
	}
	return Rate{}
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// rateBounds takes down a rate that is too high for the highest tier, or too low.
func (p *parser) rateBounds(n *yaml.Node, b Bucket) {
	perMinute := float64(b.Rate.Count) * float64(time.Minute) / float64(b.Rate.Unit)
	switch {
	case perMinute > maxPerMinute:
		p.add(n, "rate: %s is above %s a minute", b.Rate, group(maxPerMinute))
	case b.Tiered && perMinute*p.factor > maxPerMinute:
		p.add(n, "rate: %s times %v, the factor of the tier %s, is above %s a minute", b.Rate, p.factor, p.tier, group(maxPerMinute))
	case float64(b.Burst)/float64(b.Rate.Count)*float64(b.Rate.Unit) > float64(maxFill):
		p.add(n, "rate: %s needs more than %d days to fill a burst of %s; raise the rate or lower the burst", b.Rate, maxFill/day, group(b.Burst))
	}
}

// distinct takes down buckets of a policy that could not be told apart.
func (p *parser) distinct(pol Policy, nodes []*yaml.Node) {
	for i, b := range pol.Buckets {
		for j, other := range pol.Buckets[:i] {
			if pol.label(b) != pol.label(other) {
				continue
			}
			line := nodes[j].Line
			if b.Per == other.Per {
				p.add(nodes[i], "buckets: this is the second one per %s with the name %s (line %d); give it a name of its own", b.Per, pol.label(b), line)
				break
			}
			if b.Burst != other.Burst || !b.Rate.equal(other.Rate) || b.Tiered != other.Tiered {
				p.add(nodes[i], "buckets: burst, rate or tiered differ from those of the bucket with the name %s in line %d; give it a name of its own", pol.label(b), line)
				break
			}
		}
	}
}

// label is the name of a bucket in the headers.
func (p *Policy) label(b Bucket) string {
	if b.Name == "" {
		return p.Name
	}
	return b.Name
}

// equal says that both rates are the same, as 60/m and 1/s are.
func (r Rate) equal(other Rate) bool {
	return r.Count*int64(other.Unit/time.Second) == other.Count*int64(r.Unit/time.Second)
}
