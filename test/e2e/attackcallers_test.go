package e2e_test

import "strings"

func spoofed() []attack {
	var rows []attack
	for _, headers := range [][]string{
		{"CF-Connecting-IP: {A}"}, {"CF-Connecting-IP: {A}", "CF-Connecting-IP: {B}"}, {"CF-Connecting-IP: 127.0.0.1"}, {"CF-Connecting-IP: ::1"},
		{"X-Forwarded-For: {A}"}, {"X-Forwarded-For: {A}, 127.0.0.1"}, {"X-Forwarded-For: {A}", "X-Forwarded-For: 127.0.0.1"},
		{"X-Forwarded-For: ::ffff:{A}"}, {"X-Forwarded-For: [{N}::1]:443"}, {"X-Forwarded-For: unix"}, {"X-Forwarded-For: "},
		{"CF-Connecting-IP: {A}", "X-Forwarded-For: {B}", "X-Real-IP: {B}"}, {"X-Real-IP: {A}"}, {"True-Client-IP: {A}"}, {"CF-Connecting-IPv6: {N}::1"},
		{"Forwarded: for={A}"}, {"X-Envoy-External-Address: {A}"}, {"X-Client-IP: {A}", "X-Cluster-Client-IP: {A}"},
		{"X-RateLimit-Tier: premium"}, {"X-RateLimit-Tier: PREMIUM"}, {"X-RateLimit-Tier: premium", "CF-Connecting-IP: {A}"},
		{"X-User-ID: {u}"}, {"X-User-ID: {u}", "CF-Connecting-IP: {A}", "X-RateLimit-Tier: premium"},
	} {
		rows = append(rows, attack{from: client, spend: []string{}, headers: headers})
	}
	for _, peer := range []from{mapped, six} {
		for _, headers := range [][]string{
			{}, {"CF-Connecting-IP: {A}"}, {"X-Forwarded-For: {A}"}, {"X-Forwarded-For: {N}::1"}, {"X-RateLimit-Tier: premium"}, {"X-User-ID: {u}"},
		} {
			rows = append(rows, attack{from: peer, spend: []string{}, headers: headers})
		}
	}
	return rows
}

func malformed() []attack {
	var fill, many []string
	for range 40 {
		fill = append(fill, "X-Fill: "+strings.Repeat("x", 1000))
	}
	for range 300 {
		many = append(many, "X-Fill: x")
	}
	rows := []attack{
		{headers: []string{"CF_Connecting_IP: {A}"}},
		{headers: []string{"X_Forwarded_For: {A}"}},
		{headers: []string{"X_User_ID: {u}"}},
		{headers: []string{"X-User-ID: \xff"}, say: "`X-User-ID:` and a byte 0xFF"},
		{headers: []string{"CF-Connecting-IP: {A}\x00"}, say: "`CF-Connecting-IP: {A}` and a byte 0"},
		{headers: append([]string{"CF-Connecting-IP: {A}"}, fill...), say: "`CF-Connecting-IP: {A}` and 40 kB of headers"},
		{headers: append([]string{"CF-Connecting-IP: {A}"}, many...), say: "`CF-Connecting-IP: {A}` and 300 headers"},
		{headers: []string{"X-Forwarded-For: {A}" + strings.Repeat(",127.0.0.1", 1500)}, say: "`X-Forwarded-For: {A},127.0.0.1,…`, 1,500 hops"},
		{say: "`CF-Connecting-IP : {A}`", text: "POST /run HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP : {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "` CF-Connecting-IP: {A}`, folded", text: "POST /run HTTP/1.1\r\nHost: api.test\r\nX: y\r\n CF-Connecting-IP: {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "`X: y`, a bare line feed, `CF-Connecting-IP: {A}`", text: "POST /run HTTP/1.1\r\nHost: api.test\r\nX: y\nCF-Connecting-IP: {A}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "`CF-Connecting-IP: {A}` as a trailer", text: "POST /run HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nTrailer: CF-Connecting-IP\r\nConnection: close\r\n\r\n0\r\nCF-Connecting-IP: {A}\r\n\r\n"},
		{say: "`Connection: X-Forwarded-For, CF-Connecting-IP`", text: "POST /run HTTP/1.1\r\nHost: api.test\r\nCF-Connecting-IP: {A}\r\nX-Forwarded-For: {A}\r\nContent-Length: 0\r\nConnection: close, X-Forwarded-For, CF-Connecting-IP\r\n\r\n"},
		{say: "`PROXY TCP4 {A} 127.0.0.1 1 2` before the request", text: "PROXY TCP4 {A} 127.0.0.1 1 2\r\nPOST /run HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{say: "`CF-Connecting-IP` in capitals", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /run", "CF-Connecting-IP: {A}"}},
		{say: "a pseudo-header `:peer: {A}`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /run", ":peer: {A}"}},
		{say: "`connection: close`", fields: []string{":method: POST", ":scheme: http", ":authority: api.test", ":path: /run", "connection: close", "cf-connecting-ip: {A}"}},
	}
	for i := range rows {
		rows[i].from, rows[i].spend = client, []string{}
	}
	return rows
}

func spellings() []attack {
	const a, n = "CF-Connecting-IP: {A}", "CF-Connecting-IP: {N}::1"
	var rows []attack
	for _, h := range [][]string{
		{a}, {"cf-connecting-ip: {A}"}, {"CF-Connecting-IP:   {A}  "}, {"CF-Connecting-IP: {A}:4711"}, {"CF-Connecting-IP: ::ffff:{A}"},
		{"CF-Connecting-IP: [::ffff:{A}]:4711"}, {"CF-Connecting-IP: ::FFFF:{A}"}, {a, "X-Forwarded-For: {B}"}, {a, "X-Forwarded-For: {B}, {B}"}, {a, "X-Real-IP: {B}", "Forwarded: for={B}"},
		{"X-Forwarded-For: {A}"}, {"X-Forwarded-For: {B}, {A}"}, {"X-Forwarded-For: {B}", "X-Forwarded-For: {A}"}, {"X-Forwarded-For: {A}, 127.0.0.1"}, {"X-Forwarded-For: junk, {A}"},
		{"X-Forwarded-For: ,,{A}"}, {"X-Forwarded-For: {B}, ::ffff:{A}"}, {"CF-Connecting-IP: {B}, {B}", "X-Forwarded-For: {A}"}, {"CF-Connecting-IP: {B}", "CF-Connecting-IP: {B}", "X-Forwarded-For: {A}"},
		{"CF-Connecting-IP: nobody", "X-Forwarded-For: {A}"}, {"CF-Connecting-IP: 0{A}", "X-Forwarded-For: {A}"}, {"CF-Connecting-IP: {A}/32", "X-Forwarded-For: {A}"},
		{a, "X-RateLimit-Tier: premium, premium"}, {a, "X-RateLimit-Tier: premium", "X-RateLimit-Tier: premium"}, {a, "X-RateLimit-Tier: gold"},
		// The debt stays when the tier changes.
		{a, "X-RateLimit-Tier: premium"},
	} {
		rows = append(rows, attack{from: proxy, spend: []string{a}, headers: h})
	}
	for _, h := range []string{"{N}::1", "{N}::2", "{N}:ffff:ffff:ffff:ffff", "[{N}::3]:443", "{N}::4%eth0"} {
		rows = append(rows, attack{from: proxy, spend: []string{n}, headers: []string{"CF-Connecting-IP: " + h}})
	}
	return append(rows,
		attack{from: proxy, spend: []string{n}, headers: []string{"X-Forwarded-For: {N}::5"}},
		attack{from: mappedProxy, spend: []string{a}, headers: []string{a}},
		attack{from: mappedProxy, spend: []string{a}, headers: []string{"X-Forwarded-For: ::ffff:{A}"}},
	)
}

func others() []attack {
	const a = "CF-Connecting-IP: {A}"
	return []attack{
		{from: proxy, spend: []string{a}, headers: []string{"CF-Connecting-IP: {B}"}},
		{from: proxy, spend: []string{a}, headers: []string{"CF-Connecting-IP: {B}", "X-Forwarded-For: {A}"}},
		{from: proxy, spend: []string{a}, headers: []string{"X-Forwarded-For: {A}, {B}"}},
		{from: proxy, spend: []string{a}, headers: []string{"CF-Connecting-IP: {N}::1"}},
		{from: proxy, spend: []string{"CF-Connecting-IP: {N}::1"}, headers: []string{"CF-Connecting-IP: {N}1::1"}},
		{from: proxy, spend: []string{}, headers: []string{"CF-Connecting-IP: {A}", "X-RateLimit-Tier: premium"}},
		{from: client, spend: []string{}, headers: []string{}, say: "the next client, directly"},
		{from: mapped, spend: []string{}, headers: []string{}, say: "the next client, as IPv4 in IPv6"},
	}
}

func nameless() []attack {
	var rows []attack
	for _, h := range [][]string{
		{}, {"CF-Connecting-IP: {A}", "CF-Connecting-IP: {B}"}, {"CF-Connecting-IP: {A},{B}"}, {"CF-Connecting-IP: {A}, {A}"}, {"CF-Connecting-IP: nobody"}, {"CF-Connecting-IP: "},
		{"CF-Connecting-IP: {A}x"}, {"CF-Connecting-IP: [{A}"}, {"CF-Connecting-IP: {A}:99999999"}, {"CF-Connecting-IP: 1"},
		{"X-Forwarded-For: {A}, junk"}, {"X-Forwarded-For: {A},"}, {"X-Forwarded-For: unknown"}, {"X-Real-IP: {A}"}, {"Forwarded: for={A}"}, {"X-Envoy-External-Address: {A}"},
	} {
		rows = append(rows, attack{from: proxy, spend: []string{}, headers: h})
	}
	return append(rows,
		attack{from: proxy, spend: []string{}, headers: []string{"CF-Connecting-IP: {A}\xff"}, say: "`CF-Connecting-IP: {A}` and a byte 0xFF"},
		attack{from: proxy, spend: []string{}, headers: []string{"X-Forwarded-For: {A}, " + strings.Repeat("9", 5000)}, say: "`X-Forwarded-For: {A}, 999…`, 5 kB of it"},
	)
}

func users() []attack {
	const a = "CF-Connecting-IP: {A}"
	var rows []attack
	for _, h := range [][]string{
		{"X-User-ID: {u}"}, {"X-UserID: {u}"}, {"X-User-ID: {u}", "X-User-ID: {u}"}, {"X-User-ID: a,b"}, {"X-User-ID: "}, {"X-User-ID: {u}", "X-UserID: b"}, {"X-User: {u}", "User-ID: {u}"},
	} {
		rows = append(rows, attack{from: proxy, spend: []string{a}, headers: append([]string{a}, h...)})
	}
	for _, q := range []string{
		"user_id={u}", "user%5Fid={u}", "user_id=a&user_id=b", "user_id=%00", "user_id=%FF", "user_id=a;user_id=b", "USER_ID={u}",
	} {
		rows = append(rows, attack{from: proxy, spend: []string{a}, line: "POST /run?" + q, headers: []string{a}})
	}
	const u = "X-User-ID: {u}"
	return append(rows,
		attack{from: proxy, spend: []string{a, "X-User-ID: " + strings.Repeat("u", 300)}, headers: []string{a, "X-User-ID: " + strings.Repeat("u", 299)}, say: "`X-User-ID` of 300 letters"},
		attack{from: proxy, spend: []string{a, u}, headers: []string{"CF-Connecting-IP: {B}", u}, say: "`X-User-ID: {u}` from B, after A has spent what u has"},
		attack{from: proxy, spend: []string{a, u}, headers: []string{"CF-Connecting-IP: {B}", "X-UserID: {u}"}, say: "`X-UserID: {u}` likewise"},
		attack{from: proxy, spend: []string{a, u}, line: "POST /run?user%5fid={u}", headers: []string{"CF-Connecting-IP: {B}"}, say: "`POST /run?user%5fid={u}` likewise"},
	)
}

func victims() []attack {
	const b = "CF-Connecting-IP: {B}"
	var rows []attack
	for _, h := range [][]string{
		{"X-User-ID: {u}"}, {"X-UserID: {u}"}, {"Sub: {u}"}, {"X-JWT-Payload: {\"sub\":\"{u}\"}"}, {"JWT_Payload: {u}"}, {"Authorization: {token another}", "X-User-ID: {u}"},
		{"Authorization: {token of a stranger}"}, {"Authorization: {token that is too old}"}, {"Authorization: {token unsigned}"}, {"Authorization: {token for somebody else}"},
		{"Authorization: {token another}", "Authorization: {token of a stranger}"}, {"Authorization: Basic dTp1"}, {"Authorization: Bearer {u}"},
		{"Cookie: access_token={u}"},
	} {
		rows = append(rows, attack{from: proxy, headers: append([]string{b}, h...)})
	}
	return append(rows,
		attack{from: proxy, line: "POST /run?user_id={u}", headers: []string{b}},
		attack{from: proxy, line: "POST /run?sub={u}&access_token={a stranger}", headers: []string{b}, say: "`POST /run?sub={u}&access_token={token of a stranger}`"},
		attack{from: six, headers: []string{"X-Forwarded-For: {B}", "X-User-ID: {u}"}},
		attack{from: client, headers: []string{"X-User-ID: {u}"}},
		attack{from: client, headers: []string{"CF-Connecting-IP: {A}", "X-Forwarded-For: {A}"}, say: "by its address: `CF-Connecting-IP: {A}`, `X-Forwarded-For: {A}` of the victim"},
	)
}

func tokens() []attack {
	const a, b, t = "CF-Connecting-IP: {A}", "CF-Connecting-IP: {B}", "Authorization: {token}"
	return []attack{
		{from: proxy, spend: []string{a, t}, headers: []string{b, t}},
		{from: proxy, spend: []string{a, t}, headers: []string{b, "authorization: {token}"}},
		{from: proxy, spend: []string{a, t}, headers: []string{b, t, "X-User-ID: another"}},
		{from: proxy, spend: []string{a, t}, line: "POST /run?user_id=another", headers: []string{b, t}},
		{from: proxy, spend: []string{a, t}, headers: []string{b, t, "X-RateLimit-Tier: premium, premium"}},
		{from: proxy, spend: []string{a, t}, headers: []string{b, "Authorization: {the same user's newer token}"}},
		{from: proxy, spend: []string{a}, headers: []string{a, t}, say: "a token from A, whose bucket is empty"},
		{from: six, spend: []string{"CF-Connecting-IP: {N}::1"}, headers: []string{"CF-Connecting-IP: {N}::2"}, say: "no token, `CF-Connecting-IP: {N}::2` by a proxy at ::1 after `{N}::1`"},
		{from: six, spend: []string{a}, headers: []string{"X-Forwarded-For: ::ffff:{A}"}, say: "no token, `X-Forwarded-For: ::ffff:{A}` by a proxy at ::1 after A"},
	}
}
