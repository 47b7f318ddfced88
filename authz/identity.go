package authz

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

const (
	// maxHops and maxForwarded (bytes) bound how much of X-Forwarded-For is read, from
	// the right.
	maxHops      = 32
	maxForwarded = 4 << 10
	// maxAddr is the length of the longest address that is read, with port, brackets and
	// zone.
	maxAddr = 80
	// maxUserID is the length in bytes of the longest user id.
	maxUserID = 256
)

// Caller is the sender of a request, to whose buckets the request is charged.
type Caller struct {
	// IP is the subject of the bucket of the address: "ip:192.0.2.1", "ip:2001:db8::/64"
	// or, if the address is not known, "ip:unknown".
	IP string
	// User is the subject of the bucket of the user: "user:" or "jwt:" and a hash. It is
	// empty for an anonymous caller, who has no such bucket.
	User string
	// ipKey and userKey are the keys of the first bucket of the address and of the user. IP
	// and User are their ends.
	ipKey, userKey string
	addr           netip.Addr
	// IPFrom and UserFrom say where address and user were found. They are labels of the
	// metrics.
	IPFrom   IPSource
	UserFrom UserSource
	// Tier is the name of the caller's tier, and tier its number.
	Tier string
	tier int
	// BadIPHeader says that a trusted peer sent CLIENT_IP_HEADER with a value that is no
	// address, or several times.
	BadIPHeader bool
}

// IPSource is where the address of a caller was found.
type IPSource string

// The sources of an address. IPFromProxy is the address of a trusted proxy: the proxy
// named nobody but trusted proxies, so all its clients share one bucket.
const (
	IPFromHeader    IPSource = "client_ip_header"
	IPFromForwarded IPSource = "x_forwarded_for"
	IPFromPeer      IPSource = "peer"
	IPFromProxy     IPSource = "proxy"
	IPFromNothing   IPSource = "unknown"
)

// ipKind is how the subjects of addresses begin.
const ipKind = "ip:"

// unknownIP is the subject of all callers without an address.
const unknownIP = "ip:unknown"

// identifier finds out who sent a request.
type identifier struct {
	trusted Proxies
	// ipHeader is lower case, or empty if no such header is believed.
	ipHeader string
	users    UserSources

	jwtPayload, userClaim, tierClaim string
}

func newIdentifier(cfg Config) identifier {
	return identifier{
		trusted:    cfg.TrustedProxies,
		ipHeader:   strings.ToLower(cfg.ClientIPHeader),
		users:      cfg.UserSources,
		jwtPayload: cfg.JWTPayload,
		userClaim:  cfg.JWTUserClaim,
		tierClaim:  cfg.JWTTierClaim,
	}
}

// identify finds out all but the user.
func (i identifier) identify(r envoy.Request, rules *rules, g *guarded) Caller {
	c := Caller{IPFrom: IPFromNothing}
	fromProxy := i.trusted.Contains(r.Peer)
	ip, from, badHeader := clientIP(r, fromProxy, i.trusted, i.ipHeader)
	if ip.IsValid() {
		c.IPFrom = from
	}
	var scratch [128]byte
	c.ipKey = string(appendIPSubject(append(scratch[:0], g.ipPrefix...), ip))
	c.IP = c.ipKey[len(g.ipPrefix):]
	c.addr = ip
	c.BadIPHeader = badHeader
	c.tier = i.tier(r, rules.set, fromProxy)
	c.Tier = rules.tiers[c.tier]
	return c
}

// identifyUser finds out the user.
func (i identifier) identifyUser(c *Caller, r envoy.Request, g *guarded) {
	kind, id, from := i.user(r)
	c.UserFrom = from
	if id == "" {
		return
	}
	var scratch [128]byte
	c.userKey = string(appendUserSubject(append(scratch[:0], g.userPrefix...), kind, id))
	c.User = c.userKey[len(g.userPrefix):]
}

// tier returns the number of the tier that a request names. It believes the header of a
// trusted proxy and the claim of a verified token. A name that is no tier counts as none.
func (i identifier) tier(r envoy.Request, set *policy.Set, fromProxy bool) int {
	if name, lines := r.Header("x-ratelimit-tier"); fromProxy && lines == 1 {
		if tier, ok := set.Tier(name); ok && tier > 0 {
			return tier
		}
	}
	if i.tierClaim == "" {
		return 0
	}
	name, _ := r.Claim(i.jwtPayload, i.tierClaim).(string)
	tier, _ := set.Tier(name)
	return tier
}

// except finds out whether an exception is for the caller. That of the verified user
// counts before that of the address.
func (i identifier) except(c *Caller, r envoy.Request, rules *rules) policy.Exception {
	user := ""
	if rules.set.HasUsers() {
		user = i.verified(r)
	}
	e := exceptionFor(rules.set, user, c.addr)
	if e.Tier >= 0 {
		c.tier, c.Tier = e.Tier, rules.tiers[e.Tier]
	}
	return e
}

// exceptionFor returns the exception for a verified user, else that for an address. Both may
// be missing.
func exceptionFor(set *policy.Set, user string, ip netip.Addr) policy.Exception {
	if user != "" {
		if e, ok := set.OfUser(user); ok {
			return e
		}
	}
	if ip.IsValid() {
		if e, ok := set.OfIP(ip); ok {
			return e
		}
	}
	return policy.Exception{Tier: policy.NoTier}
}

// clientIP returns the address of the client, or the zero Addr. It believes the headers
// of a trusted peer alone: anybody else could write anything into them. badHeader says
// that a trusted peer sent the header with something else than one address.
func clientIP(r envoy.Request, fromProxy bool, trusted Proxies, header string) (ip netip.Addr, from IPSource, badHeader bool) {
	if !fromProxy {
		return r.Peer.Addr, IPFromPeer, false
	}
	if header != "" {
		value, lines := r.Header(header)
		if ip, ok := parseHop(value); ok && lines == 1 {
			return ip, IPFromHeader, false
		}
		badHeader = lines > 0
	}
	value, _ := r.Header("x-forwarded-for")
	switch ip = lastUntrusted(value, trusted); {
	case !ip.IsValid():
		return r.Peer.Addr, IPFromProxy, badHeader
	case trusted.contains(ip):
		return ip, IPFromProxy, badHeader
	default:
		return ip, IPFromForwarded, badHeader
	}
}

// lastUntrusted reads X-Forwarded-For from the right, where the nearest proxy wrote. It
// returns the first hop that is no trusted proxy. If it comes to the left end or to
// something that is no address, it returns the hop before that, or the zero Addr.
func lastUntrusted(forwarded string, trusted Proxies) netip.Addr {
	if cut := len(forwarded) - maxForwarded; cut > 0 {
		// The cut may go through a hop; the rest of that hop is skipped.
		_, forwarded, _ = strings.Cut(forwarded[cut:], ",")
	}
	var last netip.Addr
	for range maxHops {
		comma := strings.LastIndexByte(forwarded, ',')
		ip, ok := parseHop(forwarded[comma+1:])
		if !ok {
			return last
		}
		last = ip
		if comma < 0 || !trusted.contains(ip) {
			return last
		}
		forwarded = forwarded[:comma]
	}
	return last
}

// parseHop reads an address with or without port, brackets and zone.
//
// IPv6 with a port should have brackets, but CloudFront-Viewer-Address has none. What
// stands after the last colon is the port where the whole is no address, as in
// 2001:db8::9:46532. 2001:db8::9:4653 is an address as it stands, and is read as one:
// most headers mean it so, and the bucket, that of the /64, is the same either way.
//
// The two readings differ in the /64 where five or more groups follow "::", as in
// 2001:db8::a:b:c:d:443. There the last group is a port. Clients choose their port and
// the lower half of their address: read as a whole, the address would let them choose
// among the buckets of strangers. An address of that form without a port is one of a
// network X:0:0::/48, which nobody has been given, or is not written as RFC 5952 says.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	if len(s) > maxAddr {
		return netip.Addr{}, false
	}
	if inside, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inside, "]") {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inside, "]"))
		return plain(ip), err == nil
	}
	if strings.Contains(s, ":") { // else there is no port, and the error would cost memory
		if ap, err := netip.ParseAddrPort(s); err == nil {
			return plain(ap.Addr()), true
		}
	}
	whole, err := netip.ParseAddr(s)
	host, ok := withoutPort(s)
	switch {
	case err != nil:
		return host, ok
	case ok && !whole.Is4In6() && slash64(host) != slash64(plain(whole)):
		return host, true
	default:
		return plain(whole), true
	}
}

// withoutPort reads an IPv6 address that a port follows after a colon.
func withoutPort(s string) (netip.Addr, bool) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return netip.Addr{}, false
	}
	if _, err := strconv.ParseUint(s[colon+1:], 10, 16); err != nil {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(s[:colon])
	return plain(ip), err == nil
}

// plain is an address without a zone; IPv4 that is written as IPv6 is IPv4.
func plain(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

// appendIPSubject appends the subject of an address: "ip:192.0.2.1", "ip:2001:db8::/64" or,
// without an address, that of all callers without one.
func appendIPSubject(b []byte, ip netip.Addr) []byte {
	if !ip.IsValid() {
		return append(b, unknownIP...)
	}
	b = append(b, ipKind...)
	if ip.Is4() {
		return ip.AppendTo(b)
	}
	return slash64(ip).AppendTo(b)
}

// slash64 is the /64 of an IPv6 address. A client can choose any address of its /64, so the
// /64 has the bucket.
func slash64(ip netip.Addr) netip.Prefix {
	return netip.PrefixFrom(ip, 64).Masked()
}
