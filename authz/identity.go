package authz

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/refrakt-hub/refrakt-gate/envoy"
)

// Tier is what a caller has paid for.
type Tier string

// The tiers.
const (
	TierPlain   Tier = "plain"
	TierPremium Tier = "premium"
)

const (
	// maxHops bounds how much of X-Forwarded-For is read, from the right.
	maxHops = 32
	// maxAddr is longer than any address with port, brackets and zone.
	maxAddr   = 80
	maxUserID = 256
)

// Caller is whose buckets a request is charged to.
type Caller struct {
	// IP and User are bucket subjects. User is empty for an anonymous caller.
	IP, User string
	Tier     Tier
	// Ambiguous says that a user was named, but not for sure: it counts as none.
	Ambiguous bool
}

// unknownIP is the subject that all callers without an address share.
const unknownIP = "ip:unknown"

// identify finds out who sent the request. clientIPHeader is lower case, or
// empty if no such header is believed.
func identify(r envoy.Request, trusted Proxies, clientIPHeader string) Caller {
	c := Caller{IP: unknownIP, Tier: TierPlain}
	fromProxy := trusted.Contains(r.Peer)
	if ip := clientIP(r, fromProxy, trusted, clientIPHeader); ip.IsValid() {
		c.IP = ipSubject(ip)
	}
	if tier, lines := r.Header("x-ratelimit-tier"); fromProxy && lines == 1 && strings.EqualFold(strings.TrimSpace(tier), string(TierPremium)) {
		c.Tier = TierPremium
	}
	id, sure := userID(r)
	if id != "" && sure {
		// Hashed, so that what a client sends neither shapes a key nor stands in the store.
		sum := sha256.Sum256([]byte(id))
		c.User = "user:" + base64.RawURLEncoding.EncodeToString(sum[:16])
	}
	c.Ambiguous = !sure
	return c
}

// clientIP returns the address of the client, or the zero Addr. Headers are
// believed only from a trusted peer: anybody else could write anything into them.
func clientIP(r envoy.Request, fromProxy bool, trusted Proxies, header string) netip.Addr {
	if !fromProxy {
		return r.Peer.Addr
	}
	if header != "" {
		if value, lines := r.Header(header); lines == 1 {
			if ip, ok := parseHop(value); ok {
				return ip
			}
		}
	}
	value, _ := r.Header("x-forwarded-for")
	if ip := lastUntrusted(value, trusted); ip.IsValid() {
		return ip
	}
	return r.Peer.Addr
}

// lastUntrusted walks X-Forwarded-For from the right, where the nearest proxy
// wrote, over the hops of trusted proxies to the first that is not one. It stops
// at what is no address and returns the last good hop, or the zero Addr.
func lastUntrusted(forwarded string, trusted Proxies) netip.Addr {
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
func parseHop(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	if len(s) > maxAddr {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		ip = ap.Addr()
	}
	return ip.Unmap().WithZone(""), true
}

// ipSubject names the bucket of an address. An IPv6 client has a whole /64 to
// pick addresses from, so that is what is limited.
func ipSubject(ip netip.Addr) string {
	if ip.Is4() {
		return "ip:" + ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return unknownIP
	}
	return "ip:" + prefix.String()
}

// userID returns the id under which the client says it acts: the first of
// X-User-ID, X-UserID and the query parameter user_id that is there decides. It
// is not sure, and then nobody's, where servers would read it differently.
func userID(r envoy.Request) (id string, sure bool) {
	for _, name := range []string{"x-user-id", "x-userid"} {
		if value, lines := r.Header(name); lines > 1 || value != "" {
			return value, lines == 1 && !strings.Contains(value, ",") && isPlain(value)
		}
	}
	_, query, _ := strings.Cut(r.Path, "?")
	query, _, _ = strings.Cut(query, "#")
	times := 0
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if unescape(name, true) == "user_id" {
			times++
			id = unescape(value, true)
		}
	}
	return id, times <= 1 && isPlain(id)
}

func isPlain(id string) bool {
	return len(id) <= maxUserID && utf8.ValidString(id) && strings.IndexFunc(id, unicode.IsControl) < 0
}
