package authz

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

const defaultProxies = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,unix"

func proxies(t testing.TB, list string) Proxies {
	t.Helper()
	var p Proxies
	if err := p.UnmarshalText([]byte(list)); err != nil {
		t.Fatalf("trusted proxies %q: %v", list, err)
	}
	return p
}

// identify identifies the sender of r with the default sources of a user.
func identify(r envoy.Request, trusted Proxies, ipHeader string) Caller {
	return identifier{trusted: trusted, ipHeader: ipHeader, users: UserSources{UserHeader, UserQuery}}.identifyAll(r)
}

// identifyAll finds out address and user.
func (i identifier) identifyAll(r envoy.Request) Caller {
	rules := (&Server{metrics: newMetrics(prometheus.NewRegistry(), nil, nil)}).newRules(preset(policy.Environment{RunBurst: 1, RunPerMinute: 1, AssistantBurst: 1, AssistantPerMinute: 1}, nil))
	g := rules.guarded[rules.set.Named("run")]
	c := i.identify(r, rules, g)
	i.identifyUser(&c, r, g)
	return c
}

// unverifiedUser returns the user that the client claims to be.
func unverifiedUser(r envoy.Request) (id string, named, sure bool) {
	if id, named, sure = headerUser(r); named {
		return id, named, sure
	}
	return queryUser(r)
}

// line is one header line.
type line struct{ name, value string }

// checkRequest makes a CheckRequest as Envoy does: with raw headers (one entry a
// line) or plain ones (joined by commas). peer is an address, "unix" or empty.
func checkRequest(peer, path string, raw bool, lines ...line) *authv3.CheckRequest {
	http := &authv3.AttributeContext_HttpRequest{Method: "POST", Path: path}
	if raw {
		http.HeaderMap = &corev3.HeaderMap{}
		for _, l := range lines {
			http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: l.name, RawValue: []byte(l.value)})
		}
	} else {
		http.Headers = map[string]string{}
		for _, l := range lines {
			if have, ok := http.Headers[l.name]; ok {
				l.value = have + "," + l.value
			}
			http.Headers[l.name] = strings.ToValidUTF8(l.value, "!")
		}
	}
	var address *corev3.Address
	switch peer {
	case "":
	case "unix":
		address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "@"}}}
	default:
		address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: peer}}}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:  &authv3.AttributeContext_Peer{Address: address},
		Request: &authv3.AttributeContext_Request{Http: http},
	}}
}

func TestIdentifyIP(t *testing.T) {
	const cf, xff = "cf-connecting-ip", "x-forwarded-for"
	many := make([]line, 256)
	for i := range many {
		many[i] = line{name: "x-" + strconv.Itoa(i)}
	}
	tests := map[string]struct {
		peer    string
		trusted string // default: defaultProxies
		header  string // default: cf-connecting-ip; "-": none
		lines   []line
		want    string
	}{
		"untrusted peer":                         {peer: "203.0.113.9", want: "ip:203.0.113.9"},
		"untrusted peer's headers don't count":   {peer: "203.0.113.9", lines: []line{{cf, "1.1.1.1"}, {xff, "2.2.2.2"}}, want: "ip:203.0.113.9"},
		"trusted peer without headers":           {peer: "10.0.0.1", want: "ip:10.0.0.1"},
		"header from a trusted peer":             {peer: "10.0.0.1", lines: []line{{cf, "203.0.113.7"}, {xff, "2.2.2.2"}}, want: "ip:203.0.113.7"},
		"header with a port":                     {peer: "10.0.0.1", lines: []line{{cf, "203.0.113.7:4711"}}, want: "ip:203.0.113.7"},
		"header as CloudFront writes it":         {peer: "10.0.0.1", lines: []line{{cf, "2001:db8:1:2:3:4:5:9:46532"}, {xff, "2.2.2.2"}}, want: "ip:2001:db8:1:2::/64"},
		"header twice is not believed":           {peer: "10.0.0.1", lines: []line{{cf, "1.1.1.1"}, {cf, "1.1.1.1"}, {xff, "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"header with two addresses":              {peer: "10.0.0.1", lines: []line{{cf, "1.1.1.1, 3.3.3.3"}, {xff, "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"header with garbage":                    {peer: "10.0.0.1", lines: []line{{cf, "x"}, {xff, "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"header with half a bracket":             {peer: "10.0.0.1", lines: []line{{cf, "[1.1.1.1"}, {xff, "2.2.2.2]"}}, want: "ip:10.0.0.1"},
		"header empty":                           {peer: "10.0.0.1", lines: []line{{cf, ""}, {xff, "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"header with invalid UTF-8":              {peer: "10.0.0.1", lines: []line{{cf, "1.1.1.1\xff"}}, want: "ip:10.0.0.1"},
		"no header is to be believed":            {peer: "10.0.0.1", header: "-", lines: []line{{cf, "1.1.1.1"}, {xff, "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"another header":                         {peer: "10.0.0.1", header: "x-real-ip", lines: []line{{"x-real-ip", "1.1.1.1"}, {cf, "2.2.2.2"}}, want: "ip:1.1.1.1"},
		"forwarded: the last untrusted":          {peer: "10.0.0.1", lines: []line{{xff, "6.6.6.6, 2.2.2.2, 10.1.1.1, 192.168.0.1"}}, want: "ip:2.2.2.2"},
		"forwarded: all trusted":                 {peer: "10.0.0.1", lines: []line{{xff, "10.1.1.1,10.1.1.2"}}, want: "ip:10.1.1.1"},
		"forwarded: several lines":               {peer: "10.0.0.1", lines: []line{{xff, "6.6.6.6"}, {xff, "2.2.2.2,10.1.1.1"}}, want: "ip:2.2.2.2"},
		"forwarded: bad token at once":           {peer: "10.0.0.1", lines: []line{{xff, "2.2.2.2, unknown"}}, want: "ip:10.0.0.1"},
		"forwarded: bad token later":             {peer: "10.0.0.1", lines: []line{{xff, "2.2.2.2, unknown, 10.1.1.1"}}, want: "ip:10.1.1.1"},
		"forwarded: empty token":                 {peer: "10.0.0.1", lines: []line{{xff, "2.2.2.2,,10.1.1.1"}}, want: "ip:10.1.1.1"},
		"forwarded: port":                        {peer: "10.0.0.1", lines: []line{{xff, "2.2.2.2:99"}}, want: "ip:2.2.2.2"},
		"forwarded: brackets, port":              {peer: "10.0.0.1", lines: []line{{xff, "[2001:db8::1]:99"}}, want: "ip:2001:db8::/64"},
		"forwarded: brackets":                    {peer: "10.0.0.1", lines: []line{{xff, "[2001:db8::1]"}}, want: "ip:2001:db8::/64"},
		"forwarded: 10,000 trusted hops":         {peer: "10.0.0.1", lines: []line{{xff, "2.2.2.2" + strings.Repeat(",10.9.9.9", 10_000)}}, want: "ip:10.9.9.9"},
		"forwarded: 10,000 untrusted hops":       {peer: "10.0.0.1", lines: []line{{xff, strings.Repeat("6.6.6.6,", 10_000) + "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"forwarded: as long as is read":          {peer: "10.0.0.1", lines: []line{{xff, "203.0.113.9" + strings.Repeat(" ", maxForwarded-20) + ",10.9.9.9"}}, want: "ip:203.0.113.9"},
		"forwarded: cut through a hop":           {peer: "10.0.0.1", lines: []line{{xff, "203.0.113.9" + strings.Repeat(" ", maxForwarded-12) + ",10.9.9.9"}}, want: "ip:10.9.9.9"},
		"forwarded: cut through an address":      {peer: "10.0.0.1", lines: []line{{xff, "203.0.113.9," + strings.Repeat(" ", maxForwarded-18) + "10.9.9.9"}}, want: "ip:10.9.9.9"},
		"more headers than are read":             {peer: "10.0.0.1", lines: append([]line{{cf, "1.1.1.1"}, {xff, "2.2.2.2"}}, many...), want: "ip:10.0.0.1"},
		"more headers, no peer":                  {lines: append([]line{{cf, "1.1.1.1"}, {xff, "2.2.2.2"}}, many...), want: "ip:unknown"},
		"forwarded: a token of 1 MB":             {peer: "10.0.0.1", lines: []line{{xff, strings.Repeat("1", 1<<20)}}, want: "ip:10.0.0.1"},
		"IPv6 is limited by /64":                 {peer: "2001:db8:1:2:3:4:5:6", want: "ip:2001:db8:1:2::/64"},
		"IPv6 with a zone":                       {peer: "fe80::1%eth0", want: "ip:fe80::/64"},
		"IPv4 in IPv6":                           {peer: "::ffff:203.0.113.9", want: "ip:203.0.113.9"},
		"IPv4 in IPv6 is trusted as IPv4":        {peer: "::ffff:10.0.0.1", lines: []line{{xff, "::ffff:102:304"}}, want: "ip:1.2.3.4"},
		"unix socket":                            {peer: "unix", lines: []line{{xff, "2.2.2.2"}}, want: "ip:2.2.2.2"},
		"unix socket without headers":            {peer: "unix", want: "ip:unknown"},
		"unix socket that is not trusted":        {peer: "unix", trusted: "10.0.0.0/8", lines: []line{{xff, "2.2.2.2"}}, want: "ip:unknown"},
		"no peer: headers don't count":           {lines: []line{{cf, "1.1.1.1"}, {xff, "2.2.2.2"}}, want: "ip:unknown"},
		"a peer that is no address":              {peer: "example.com", lines: []line{{xff, "2.2.2.2"}}, want: "ip:unknown"},
		"none trusted":                           {peer: "127.0.0.1", trusted: "none", lines: []line{{xff, "2.2.2.2"}}, want: "ip:127.0.0.1"},
		"single addresses":                       {peer: "198.51.100.1", trusted: "198.51.100.1, 2001:db8::5", lines: []line{{xff, "9.9.9.9,2001:db8::5"}}, want: "ip:9.9.9.9"},
		"all of IPv4, mapped":                    {peer: "203.0.113.1", trusted: "::ffff:0:0/96", lines: []line{{xff, "2001:db8::1"}}, want: "ip:2001:db8::/64"},
		"mapped prefixes are those of IPv4":      {peer: "10.1.2.3", trusted: "::ffff:10.0.0.0/104", lines: []line{{xff, "9.9.9.9"}}, want: "ip:9.9.9.9"},
		"a header of the proxy's own is skipped": {peer: "10.0.0.1", lines: []line{{cf, "10.0.0.7"}}, want: "ip:10.0.0.7"},
	}
	for name, tt := range tests {
		for _, raw := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				list, header := tt.trusted, tt.header
				if list == "" {
					list = defaultProxies
				}
				switch header {
				case "":
					header = cf
				case "-":
					header = ""
				}
				got := identify(envoy.Parse(checkRequest(tt.peer, "/run", raw, tt.lines...)), proxies(t, list), header)
				if got.IP != tt.want {
					t.Errorf("raw headers %v: %s, want %s", raw, got.IP, tt.want)
				}
			})
		}
	}
}

// TestParseHop: the forms of an address with a port, and how those are read that have two
// readings.
func TestParseHop(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:46532": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[2001:db8::9]:46532": "2001:db8::9", "[2001:db8::9]": "2001:db8::9",
		"[192.0.2.1]": "192.0.2.1", "[fe80::1%eth0]:80": "fe80::1", "::ffff:192.0.2.1": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		// The whole is no address.
		"2001:db8:1:2:3:4:5:9:46532": "2001:db8:1:2:3:4:5:9", "2001:db8:1:2:3:4:5:9:80": "2001:db8:1:2:3:4:5:9",
		"2001:db8::9:46532": "2001:db8::9", "2001:db8:1:2:3:4:5:::80": "2001:db8:1:2:3:4:5:0", "2001:db8:::80": "2001:db8::", "::1:65535": "::1",
		"::ffff:192.0.2.1:80": "192.0.2.1", "fe80::1%eth0:80": "fe80::1",
		// The whole is an address, in the same /64 as what comes before the last colon.
		"2001:db8::9:4653": "2001:db8::9:4653", "2001:db8:1:2:3:4:5:80": "2001:db8:1:2:3:4:5:80", "2001:db8::80": "2001:db8::80", "::1": "::1",
		"2001:db8:1:2::3:4:80": "2001:db8:1:2::3:4:80", "2001:db8::b:c:d:80": "2001:db8::b:c:d:80", "64:ff9b::192.0.2.1": "64:ff9b::c000:201",
		// The whole is an address, in another /64.
		"2001:db8::a:b:c:d:80": "2001:db8::a:b:c:d", "2001::a:b:c:d:80": "2001::a:b:c:d", "2001:db8::a:b:c:d:8f": "2001:db8:0:a:b:c:d:8f",
		"::ffff:c000:201": "192.0.2.1", "::ffff:c000:0201:80": "192.0.2.1", "::ffff:102:304": "1.2.3.4",
		"192.0.2.1:65536": "", "2001:db8::9:65536": "", "2001:db8::9:100000": "", "2001:db8::9:": "", "2001:db8::9:+80": "", "2001:db8::9: 80": "",
		"2001:db8:1:2:3:4:5:6:7:46532": "", "2001:db8::9]:80": "", "[2001:db8::9:80": "", "[[::1]]": "", ":80": "", ":": "", "": "", "x:80": "", "192.0.2:80": "",
		"[2001:db8::9:46532]":                       "",
		"fe80::1%" + strings.Repeat("z", maxAddr-8): "fe80::1", "fe80::1%" + strings.Repeat("z", maxAddr-7): "",
	} {
		ip, ok := parseHop(text)
		if got := ip.String(); ok != (want != "") || ok && got != netip.MustParseAddr(want).String() {
			t.Errorf("%q: %s, %v, want %q", text, got, ok, want)
		}
	}
}

// TestAmbiguousAddresses: a client behind CloudFront can't choose its bucket by its port and
// the lower half of its address.
func TestAmbiguousAddresses(t *testing.T) {
	for _, network := range []string{"2001:db8:0:0", "2001:db8:7:0", "2001:0:0:0", "2001:db8:7:9", "0:0:0:0"} {
		buckets := make(map[string]bool)
		for _, low := range []string{"a:b:c:d", "f:b:c:d", "a:0:0:d", "0:b:c:d", "0:0:0:1", "1:0:0:0", "0:0:c:0"} {
			ip := netip.MustParseAddr(network + ":" + low)
			for _, port := range []string{"1", "80", "999", "4653", "9999", "46532"} {
				got, ok := parseHop(ip.String() + ":" + port)
				if !ok {
					t.Errorf("%s:%s is not read", ip, port)
				}
				buckets[string(appendIPSubject(nil, got))] = true
			}
		}
		if len(buckets) != 1 {
			t.Errorf("clients of %s::/64 have %d buckets: %v", network, len(buckets), buckets)
		}
	}
}

func TestIdentifyUser(t *testing.T) {
	const id, id2 = "x-user-id", "x-userid"
	long := strings.Repeat("u", maxUserID)
	tests := map[string]struct {
		path      string
		lines     []line
		want      string // the id that counts; empty: anonymous
		ambiguous bool
	}{
		"nobody":                      {},
		"header":                      {lines: []line{{id, "ann"}}, want: "ann"},
		"other header":                {lines: []line{{id2, "ann"}}, want: "ann"},
		"first present decides":       {path: "/run?user_id=c", lines: []line{{id2, "b"}, {id, "a"}}, want: "a"},
		"second before the query":     {path: "/run?user_id=c", lines: []line{{id2, "b"}}, want: "b"},
		"an empty header is absent":   {path: "/run?user_id=c", lines: []line{{id, ""}}, want: "c"},
		"query":                       {path: "/run?a=1&user_id=ann&b", want: "ann"},
		"query decoded":               {path: "/run?user%5Fid=a%2Bn+n", want: "a+n n"},
		"query, invalid escape":       {path: "/run?user_id=%zz", want: "%zz"},
		"query, semicolon":            {path: "/run?user_id=a;user_id=b", want: "a;user_id=b"},
		"query, blank":                {path: "/run?user_id=", want: ""},
		"query ends at the fragment":  {path: "/run?user_id=a#&user_id=b", want: "a"},
		"path is no query":            {path: "/run/user_id=a", want: ""},
		"query twice":                 {path: "/run?user_id=a&user_id=b", ambiguous: true},
		"query twice the same":        {path: "/run?user_id=a&user%5fid=a", ambiguous: true},
		"query, invalid UTF-8":        {path: "/run?user_id=%FF", ambiguous: true},
		"query, control character":    {path: "/run?user_id=a%0Ab", ambiguous: true},
		"query, the longest":          {path: "/run?user_id=ann&" + strings.Repeat("x", policy.MaxPath-12), want: "ann"},
		"query, too long to be read":  {path: "/run?user_id=ann&" + strings.Repeat("x", policy.MaxPath-11), ambiguous: true},
		"query, a million parameters": {path: "/run?" + strings.Repeat("&", 1_000_000) + "user_id=ann", ambiguous: true},
		"header twice":                {lines: []line{{id, "a"}, {id, "b"}}, ambiguous: true},
		"header twice the same":       {lines: []line{{id, "a"}, {id, "a"}}, ambiguous: true},
		"header joined":               {lines: []line{{id, "a,b"}}, ambiguous: true},
		"header, control character":   {lines: []line{{id, "a\tb"}}, ambiguous: true},
		"the longest":                 {lines: []line{{id, long}}, want: long},
		"too long":                    {lines: []line{{id, long + "u"}}, ambiguous: true},
		"1 MB":                        {lines: []line{{id, strings.Repeat("u", 1<<20)}}, ambiguous: true},
		"ambiguity hides the others":  {path: "/run?user_id=c", lines: []line{{id, "a,b"}, {id2, "b"}}, ambiguous: true},
		"a C1 control character":      {lines: []line{{id, "a\u0085b"}}, ambiguous: true},
		"the query's plus is a space": {path: "/run?user_id=a+b", want: "a b"},
	}
	for name, tt := range tests {
		for _, raw := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				path := tt.path
				if path == "" {
					path = "/run"
				}
				got := identify(envoy.Parse(checkRequest("203.0.113.9", path, raw, tt.lines...)), proxies(t, "none"), "")
				id, _, sure := unverifiedUser(envoy.Parse(checkRequest("203.0.113.9", path, raw, tt.lines...)))
				if (got.UserFrom == UserAmbiguous) != tt.ambiguous || sure == tt.ambiguous {
					t.Fatalf("raw headers %v: ambiguous %v, want %v", raw, got.UserFrom == UserAmbiguous, tt.ambiguous)
				}
				if tt.ambiguous {
					id = ""
				}
				if id != tt.want || (got.User != "") != (tt.want != "") {
					t.Errorf("raw headers %v: user %q (subject %q), want %q", raw, id, got.User, tt.want)
				}
				if tt.want != "" && strings.Contains(got.User, tt.want) && len(tt.want) > 2 {
					t.Errorf("the subject %q shows the id", got.User)
				}
			})
		}
	}
	t.Run("raw bytes that are no UTF-8", func(t *testing.T) {
		got := identify(envoy.Parse(checkRequest("203.0.113.9", "/run", true, line{id, "a\xff"})), proxies(t, "none"), "")
		if got.UserFrom != UserAmbiguous || got.User != "" {
			t.Errorf("got %+v, want no user", got)
		}
	})
	t.Run("one id, one subject", func(t *testing.T) {
		a := identify(envoy.Parse(checkRequest("203.0.113.9", "/run", true, line{id, "ann"})), proxies(t, "none"), "")
		b := identify(envoy.Parse(checkRequest("203.0.113.8", "/run?user_id=ann", false)), proxies(t, "none"), "")
		c := identify(envoy.Parse(checkRequest("203.0.113.8", "/run?user_id=bob", false)), proxies(t, "none"), "")
		if a.User != b.User || a.User == c.User {
			t.Errorf("subjects %q, %q of one user and %q of another", a.User, b.User, c.User)
		}
	})
}

func TestIdentifyTier(t *testing.T) {
	const tier = "x-ratelimit-tier"
	tests := map[string]struct {
		peer  string
		lines []line
		want  string
	}{
		"nothing said":    {"10.0.0.1", nil, policy.Plain},
		"premium":         {"10.0.0.1", []line{{tier, "premium"}}, "premium"},
		"in capitals":     {"10.0.0.1", []line{{tier, "Premium"}}, "premium"},
		"untrusted peer":  {"203.0.113.9", []line{{tier, "premium"}}, policy.Plain},
		"unknown peer":    {"", []line{{tier, "premium"}}, policy.Plain},
		"something else":  {"10.0.0.1", []line{{tier, "gold"}}, policy.Plain},
		"twice":           {"10.0.0.1", []line{{tier, "premium"}, {tier, "premium"}}, policy.Plain},
		"joined":          {"10.0.0.1", []line{{tier, "premium,plain"}}, policy.Plain},
		"over the socket": {"unix", []line{{tier, "premium"}}, "premium"},
	}
	for name, tt := range tests {
		for _, raw := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				got := identify(envoy.Parse(checkRequest(tt.peer, "/run", raw, tt.lines...)), proxies(t, defaultProxies), "")
				if got.Tier != tt.want {
					t.Errorf("raw headers %v: %s, want %s", raw, got.Tier, tt.want)
				}
			})
		}
	}
}

func TestProxiesErrors(t *testing.T) {
	for list, want := range map[string]string{
		"none,10.0.0.1": `"none" stands alone`,
		"10.0.0.0/33":   `"10.0.0.0/33" is neither a CIDR, an address, unix nor none`,
		"":              `"" is neither a CIDR, an address, unix nor none`,
		"10.0.0.1,":     `"" is neither a CIDR, an address, unix nor none`,
		"example.com":   `"example.com" is neither a CIDR, an address, unix nor none`,
		"::ffff:0:0/90": `"::ffff:0:0/90" is wider than all of IPv4`,
	} {
		var p Proxies
		if err := p.UnmarshalText([]byte(list)); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", list, err, want)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("10.0.0.1", "/run?user_id=a&user_id=%FF", "1.1.1.1", "2.2.2.2, [::1]:80", "ann", true)
	f.Add("unix", "?", "", ",,", "a,b", false)
	trusted := proxies(f, defaultProxies)
	f.Fuzz(func(t *testing.T, peer, path, cf, xff, user string, raw bool) {
		got := identify(envoy.Parse(checkRequest(peer, path, raw,
			line{"cf-connecting-ip", cf}, line{"x-forwarded-for", xff}, line{"x-user-id", user})), trusted, "cf-connecting-ip")
		if !strings.HasPrefix(got.IP, "ip:") || len(got.IP) > 60 {
			t.Fatalf("IP subject %q", got.IP)
		}
		if got.User != "" && len(got.User) != len("user:")+22 {
			t.Fatalf("user subject %q", got.User)
		}
		if got.User != "" && got.UserFrom == UserAmbiguous {
			t.Fatal("ambiguous, and a user all the same")
		}
	})
}

// token puts the payload of a verified token into a request.
func token(t *testing.T, req *authv3.CheckRequest, key string, claims map[string]any) envoy.Request {
	t.Helper()
	payload, err := structpb.NewStruct(map[string]any{key: claims})
	if err != nil {
		t.Fatal(err)
	}
	req.Attributes.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.jwt_authn": payload}}
	return envoy.Parse(req)
}

func TestIdentifyByToken(t *testing.T) {
	for name, tt := range map[string]struct {
		sources   string
		key       string
		claims    map[string]any
		lines     []line
		path      string
		user      string // "" anonymous, "jwt" by the token, "user" by header or query
		ambiguous bool
		tier      string
	}{
		"token":                        {sources: "jwt", claims: map[string]any{"sub": "ann"}, user: "jwt"},
		"number":                       {sources: "jwt", claims: map[string]any{"sub": 42}, user: "jwt"},
		"no claim":                     {sources: "jwt", claims: map[string]any{"iss": "x"}},
		"null":                         {sources: "jwt", claims: map[string]any{"sub": nil}},
		"empty":                        {sources: "jwt", claims: map[string]any{"sub": ""}, ambiguous: true},
		"a list":                       {sources: "jwt", claims: map[string]any{"sub": []any{"ann"}}, ambiguous: true},
		"a bool":                       {sources: "jwt", claims: map[string]any{"sub": true}, ambiguous: true},
		"no whole number":              {sources: "jwt", claims: map[string]any{"sub": 4.5}, ambiguous: true},
		"largest exact number":         {sources: "jwt", claims: map[string]any{"sub": 1<<53 - 1}, user: "jwt"},
		"smallest that is not exact":   {sources: "jwt", claims: map[string]any{"sub": 1 << 53}, ambiguous: true},
		"number that is not exact":     {sources: "jwt", claims: map[string]any{"sub": 1e17}, ambiguous: true},
		"control character at first":   {sources: "jwt", claims: map[string]any{"sub": "\nann"}, ambiguous: true},
		"control character":            {sources: "jwt", claims: map[string]any{"sub": "a\n"}, ambiguous: true},
		"other provider":               {sources: "jwt", key: "other", claims: map[string]any{"sub": "ann"}},
		"jwt alone, no token":          {sources: "jwt", lines: []line{{"x-user-id", "ann"}}, path: "/run?user_id=ann"},
		"jwt alone, and a header":      {sources: "jwt", claims: map[string]any{"sub": "ann"}, lines: []line{{"x-user-id", "bob"}}, user: "jwt"},
		"jwt first":                    {sources: "jwt,header", claims: map[string]any{"sub": "ann"}, lines: []line{{"x-user-id", "bob"}}, user: "jwt"},
		"jwt first, no token":          {sources: "jwt,header", lines: []line{{"x-user-id", "ann"}}, user: "user"},
		"jwt first, not sure":          {sources: "jwt,header", claims: map[string]any{"sub": ""}, lines: []line{{"x-user-id", "ann"}}, ambiguous: true},
		"query first":                  {sources: "query,header", lines: []line{{"x-user-id", "bob"}}, path: "/run?user_id=ann", user: "user"},
		"query first, with no user":    {sources: "query,header", lines: []line{{"x-user-id", "bob"}}, path: "/run?a=1", user: "user"},
		"none":                         {sources: "none", claims: map[string]any{"sub": "ann"}, lines: []line{{"x-user-id", "ann"}}},
		"premium by token":             {sources: "jwt", claims: map[string]any{"sub": "ann", "plan": "Premium"}, user: "jwt", tier: "premium"},
		"not premium":                  {sources: "jwt", claims: map[string]any{"sub": "ann", "plan": "free"}, user: "jwt"},
		"premium, but no text":         {sources: "jwt", claims: map[string]any{"sub": "ann", "plan": []any{"premium"}}, user: "jwt"},
		"the header of a stranger":     {sources: "jwt", claims: map[string]any{"sub": "ann"}, lines: []line{{"x-ratelimit-tier", "premium"}}, user: "jwt"},
		"default, and a token besides": {sources: "header,query", claims: map[string]any{"sub": "ann"}},
	} {
		var sources UserSources
		if err := sources.UnmarshalText([]byte(tt.sources)); err != nil {
			t.Fatal(err)
		}
		i := newIdentifier(Config{UserSources: sources, JWTPayload: "jwt_payload", JWTUserClaim: "sub", JWTTierClaim: "plan"})
		req := checkRequest("203.0.113.9", cmp.Or(tt.path, "/run"), true, tt.lines...)
		r := envoy.Parse(req)
		if tt.claims != nil {
			r = token(t, req, cmp.Or(tt.key, "jwt_payload"), tt.claims)
		}
		got := i.identifyAll(r)
		kind, _, _ := strings.Cut(got.User, ":")
		if kind != tt.user || (got.UserFrom == UserAmbiguous) != tt.ambiguous || got.Tier != cmp.Or(tt.tier, policy.Plain) {
			t.Errorf("%s: %+v, want user by %q, ambiguous %v, tier %s", name, got, tt.user, tt.ambiguous, cmp.Or(tt.tier, policy.Plain))
		}
	}
}

// TestNumberIsItsText: a user is the same whether a token has its id as a number or as text.
func TestNumberIsItsText(t *testing.T) {
	i := newIdentifier(Config{UserSources: UserSources{UserJWT}, JWTPayload: "p", JWTUserClaim: "sub"})
	of := func(sub any) string {
		return i.identifyAll(token(t, checkRequest("203.0.113.9", "/run", true), "p", map[string]any{"sub": sub})).User
	}
	if number, text := of(42), of("42"); number != text || number == "" || number == of(43) {
		t.Errorf("the number is %q, the text %q, another number %q", number, text, of(43))
	}
}

// TestVerifiedUsersApart: a client that claims to be ann does not use the bucket of the ann whom Envoy has verified.
func TestVerifiedUsersApart(t *testing.T) {
	i := newIdentifier(Config{UserSources: UserSources{UserJWT, UserHeader}, JWTPayload: "p", JWTUserClaim: "sub"})
	verified := i.identifyAll(token(t, checkRequest("203.0.113.9", "/run", true), "p", map[string]any{"sub": "ann"}))
	said := i.identifyAll(envoy.Parse(checkRequest("203.0.113.9", "/run", true, line{"x-user-id", "ann"})))
	again := i.identifyAll(token(t, checkRequest("203.0.113.8", "/run", false), "p", map[string]any{"sub": "ann"}))
	if verified.User == said.User || verified.User != again.User {
		t.Errorf("verified %q and %q, said %q", verified.User, again.User, said.User)
	}
}

func TestUserSources(t *testing.T) {
	for text, ok := range map[string]bool{
		"jwt": true, "jwt,header,query": true, " query , jwt ": true, "none": true,
		"": false, "jwt,": false, "none,jwt": false, "jwt,jwt": false, "cookie": false,
	} {
		var s UserSources
		err := s.UnmarshalText([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%q: %v, %v", text, s, err)
		}
		var again UserSources
		if ok && (again.UnmarshalText([]byte(s.String())) != nil || again.String() != s.String()) {
			t.Errorf("%q does not come back: %q", text, s)
		}
	}
}
