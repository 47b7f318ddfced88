package policy

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

func (p *parser) callers(n *yaml.Node) {
	prefixes := make(map[netip.Prefix]int)
	users := make(map[string]int)
	p.items(n, "callers", 0, func(n *yaml.Node) {
		var c Caller
		before := len(p.mistakes)
		at := p.fields(n, "callers", callerKeys, func(key string, v *yaml.Node) {
			switch key {
			case "ip":
				c.IP = p.prefix(v)
			case "user":
				c.User = p.user(v)
			case "then":
				c.Then = p.treatment(v)
			}
		})
		switch {
		case !at.ok:
			return
		case (at.at("ip") == nil) == (at.at("user") == nil):
			p.add(n, "callers: an entry has either ip or user")
		case at.at("then") == nil:
			p.add(n, "callers: then is missing: exempt, deny or {tier: …}")
		}
		if len(p.mistakes) > before {
			return
		}
		if c.User != "" {
			if first := users[c.User]; first != 0 {
				p.add(at.at("user"), "user: %s is already in line %d", quote(c.User), first)
				return
			}
			users[c.User] = n.Line
		} else {
			if first := prefixes[c.IP]; first != 0 {
				p.add(at.at("ip"), "ip: %s is already in line %d", c.IP, first)
				return
			}
			prefixes[c.IP] = n.Line
		}
		p.file.Callers = append(p.file.Callers, c)
	})
}

// prefix reads an address or a network. IPv4 in IPv6 is IPv4.
func (p *parser) prefix(n *yaml.Node) netip.Prefix {
	prefix, err := netip.ParsePrefix(n.Value)
	if err != nil && !strings.Contains(n.Value, "/") {
		var ip netip.Addr
		if ip, err = netip.ParseAddr(n.Value); err == nil && ip.Zone() == "" {
			ip = ip.Unmap()
			prefix = netip.PrefixFrom(ip, ip.BitLen())
		}
	}
	switch {
	case n.Kind != yaml.ScalarNode || err != nil || !prefix.IsValid():
		p.add(n, "ip: %s is neither an address nor a network, such as 192.0.2.0/24 or 2001:db8::/32", kind(n))
		return netip.Prefix{}
	case prefix.Addr().Is4In6():
		p.add(n, "ip: %s: write an IPv4 network as such", quote(n.Value))
	case prefix != prefix.Masked():
		p.add(n, "ip: %s has bits after its first %d; the network is %s", quote(n.Value), prefix.Bits(), prefix.Masked())
	}
	return prefix
}

func (p *parser) user(n *yaml.Node) string {
	id, ok := p.text(n, "user")
	if ok && (len(id) > maxUser || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl)) {
		p.add(n, "user: %s is not a user id: at most %d bytes without control characters", quote(id), maxUser)
	}
	return id
}

func (p *parser) treatment(n *yaml.Node) (t Treatment) {
	switch {
	case n.Kind == yaml.MappingNode:
		at := p.fields(n, "then", treatmentKeys, func(key string, v *yaml.Node) {
			if name, ok := p.text(v, key); ok {
				if name != Plain {
					p.knownTier(v, key, name)
				}
				t.Tier = name
			}
		})
		p.required(n, "then", at, "tier")
	case n.Kind == yaml.ScalarNode && n.Value == "exempt":
		t.Exempt = true
	case n.Kind == yaml.ScalarNode && n.Value == "deny":
		t.Deny = true
	default:
		p.add(n, "then: %s is none of exempt, deny, {tier: …}", kind(n))
	}
	return t
}
