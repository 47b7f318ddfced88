package authz

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// FuzzClientIP: the headers of an untrusted peer change nothing. With a trusted peer, the address is one that the headers
// hold, and hops to the left of the caller in X-Forwarded-For don't count.
func FuzzClientIP(f *testing.F) {
	for _, xff := range []string{
		"", "203.0.113.9", "6.6.6.6, 203.0.113.9, 10.1.1.1", "unknown, 10.1.1.1", "[2001:db8::1]:443", "::ffff:203.0.113.9", "fe80::1%eth0",
		",,", "10.1.1.1," + strings.Repeat("10.9.9.9,", 40) + "10.9.9.9", strings.Repeat(" ", 5000) + "203.0.113.9", "1.2.3.4:99999", "[::1", "0x7f.1",
		"2001:db8:1:2:3:4:5:9:46532", "2001:db8::a:b:c:d:443, 10.1.1.1",
	} {
		f.Add("10.0.0.1", "198.51.100.7", xff, "6.6.6.6", true)
		f.Add("203.0.113.77", "x", xff, "10.0.0.1", false)
		f.Add("10.0.0.1", "", xff, "9.9.9.9", true)
		f.Add("unix", "", xff, "junk", true)
		f.Add("::ffff:10.0.0.1", "[::ffff:1.2.3.4]:80", xff, " ", false)
	}
	trusted := proxies(f, defaultProxies)
	f.Fuzz(func(t *testing.T, peer, cf, xff, left string, raw bool) {
		request := func(lines ...line) envoy.Request { return envoy.Parse(checkRequest(peer, "/run", raw, lines...)) }
		r := request(line{"cf-connecting-ip", cf}, line{"x-forwarded-for", xff})
		fromProxy := trusted.Contains(r.Peer)
		ip, from, bad := clientIP(r, fromProxy, trusted, "cf-connecting-ip")
		if !fromProxy {
			if ip != r.Peer.Addr || from != IPFromPeer || bad {
				t.Fatalf("%v by %s, of an untrusted peer", ip, from)
			}
			return
		}
		xff, _ = r.Header("x-forwarded-for") // as Envoy sends it
		// The address is in the request, in this form or in another.
		if ip != r.Peer.Addr && !names(cf, ip) && !names(lastHops(xff), ip) {
			t.Fatalf("%v is in neither %q nor the last hops of %q", ip, cf, xff)
		}
		if _, lines := r.Header("cf-connecting-ip"); bad != (from != IPFromHeader && lines > 0) {
			t.Fatalf("%v by %s, the header in %d lines, bad %v", ip, from, lines, bad)
		}
		if from == IPFromForwarded && trusted.contains(ip) || from == IPFromProxy && ip.IsValid() && !trusted.contains(ip) {
			t.Fatalf("%v by %s", ip, from)
		}
		if from != IPFromForwarded {
			return
		}
		// What a client writes is to the left of what proxies add.
		longer := request(line{"cf-connecting-ip", cf}, line{"x-forwarded-for", left + "," + xff})
		if got, _, _ := clientIP(longer, true, trusted, "cf-connecting-ip"); got != ip {
			t.Fatalf("%v, and %v with %q before it", ip, got, left)
		}
	})
}

// lastHops returns as many hops as are read.
func lastHops(forwarded string) string {
	hops := strings.Split(forwarded, ",")
	return strings.Join(hops[max(0, len(hops)-maxHops):], ",")
}

// names says whether an item of the list is the address. It has its own way to remove port, brackets and zone.
func names(list string, ip netip.Addr) bool {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.Trim(item, " \t")
		if i := strings.LastIndex(item, ":"); i > 0 && item[0] != '[' {
			if a, err := netip.ParseAddr(item[:i]); err == nil && a.Unmap().WithZone("") == ip {
				return true
			}
		}
		if inside, rest, ok := strings.Cut(strings.TrimPrefix(item, "["), "]"); ok && (rest == "" || rest[0] == ':') {
			item = inside
		} else if host, _, ok := strings.Cut(item, ":"); ok && strings.Count(item, ":") == 1 {
			item = host
		}
		item, _, _ = strings.Cut(item, "%")
		if a, err := netip.ParseAddr(item); err == nil && a.Unmap() == ip {
			return true
		}
	}
	return false
}

// FuzzProxies: a list that TRUSTED_PROXIES accepts holds the addresses in it and no others, in both forms of IPv4. It is
// printed as it was read.
func FuzzProxies(f *testing.F) {
	for _, list := range []string{
		defaultProxies, "none", "unix", "", "none,unix", "198.51.100.1, 2001:db8::5", "::ffff:10.0.0.0/104", "::ffff:0:0/90", "10.0.0.1/33",
		"fe80::1%eth0", "0.0.0.0/0", "::/0", "10.1.2.3/8", "10.0.0.0/08", "10.0.0.1,", "::ffff:0:0/96",
	} {
		f.Add(list, "10.0.0.1")
		f.Add(list, "::ffff:203.0.113.9")
		f.Add(list, "2001:db8::5")
	}
	f.Fuzz(func(t *testing.T, list, address string) {
		var p Proxies
		if p.UnmarshalText([]byte(list)) != nil {
			return
		}
		if p.String() != list {
			t.Fatalf("%q reads as %q", list, p.String())
		}
		if p.unix != p.Contains(envoy.Peer{Unix: true}) || p.Contains(envoy.Peer{}) {
			t.Fatalf("%q: the socket, or a peer that is not known", list)
		}
		ip, err := netip.ParseAddr(address)
		if err != nil {
			return
		}
		ip = ip.Unmap().WithZone("")
		want := false
		for item := range strings.SplitSeq(list, ",") {
			want = want || holds(strings.TrimSpace(item), ip)
		}
		if got := p.contains(ip); got != want {
			t.Fatalf("%q holds %v: %v, want %v", list, ip, got, want)
		}
	})
}

// holds says whether one item of the list holds the address, bit by bit.
func holds(item string, ip netip.Addr) bool {
	base, length, isPrefix := strings.Cut(item, "/")
	a, err := netip.ParseAddr(base)
	if err != nil {
		return false // unix, none
	}
	bits := a.BitLen()
	if isPrefix {
		bits = 0
		for _, digit := range length {
			bits = 10*bits + int(digit-'0')
		}
	}
	// A mapped prefix is one of IPv4.
	if a.Is4In6() {
		a, bits = a.Unmap(), bits-96
	}
	if a.BitLen() != ip.BitLen() {
		return false
	}
	x, y := a.AsSlice(), ip.AsSlice()
	for i := range bits {
		if (x[i/8]^y[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}
