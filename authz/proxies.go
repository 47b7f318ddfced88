package authz

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// Proxies is a set of peers whose headers are believed. The zero value is the empty set.
type Proxies struct {
	prefixes []netip.Prefix
	unix     bool
	text     string
}

// UnmarshalText reads a comma-separated list of CIDRs, addresses and the word unix (a
// peer on a unix socket): "10.0.0.0/8,2001:db8::5,unix". The word none, alone, is the
// empty set.
func (p *Proxies) UnmarshalText(text []byte) error {
	*p = Proxies{text: string(text)}
	items := strings.Split(string(text), ",")
	for _, item := range items {
		item = strings.TrimSpace(item)
		switch item {
		case "none":
			if len(items) > 1 {
				return errors.New(`"none" stands alone`)
			}
			continue
		case "unix":
			p.unix = true
			continue
		}
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			addr, err := netip.ParseAddr(item)
			if err != nil {
				return fmt.Errorf("%q is neither a CIDR, an address, unix nor none", item)
			}
			prefix = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
		}
		if a := prefix.Addr(); a.Is4In6() {
			if prefix.Bits() < 96 {
				return fmt.Errorf("%q is wider than all of IPv4", item)
			}
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		p.prefixes = append(p.prefixes, prefix.Masked())
	}
	return nil
}

// String returns the list as it was given.
func (p Proxies) String() string { return p.text }

// Contains says whether the peer is in the set.
func (p Proxies) Contains(peer envoy.Peer) bool {
	if peer.Unix {
		return p.unix
	}
	return peer.Addr.IsValid() && p.contains(peer.Addr)
}

func (p Proxies) contains(ip netip.Addr) bool {
	for _, prefix := range p.prefixes {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}
