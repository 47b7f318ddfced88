package e2e_test

import "strings"

// rule is what must come of an attack.
type rule int

const (
	noJob   rule = iota // the API starts no job
	charged             // 429 from the gate: it is the same bucket, which is empty
	passes              // neither 429 nor 503: the gate does not guard it
	another             // 202: it is another caller, whose bucket is full
	spared              // the bucket of the victim is full afterwards
)

// from is the sender, as Envoy sees it.
type from string

const (
	proxy       from = "127.0.0.1"           // trusted, over IPv4
	client      from = "a client"            // an address of its own, over IPv4, untrusted
	mapped      from = "a client, by ::ffff" // the same at a listener of IPv6, where it is IPv4 in IPv6
	mappedProxy from = "127.0.0.1, by ::ffff"
	six         from = "::1" // untrusted, or trusted behind the gate of tokens
)

// attack is a row. The headers spend are sent until the bucket is empty; then comes the attack itself. {A} and {B} are IPv4
// addresses, {N} is the first half of an IPv6 address and {u} a user; no other row uses them. {token …} are tokens.
type attack struct {
	from    from
	spend   []string // headers of POST /run; nil: those of the attack
	line    string   // "" is POST /run
	headers []string
	say     string // instead of line and headers
	// For what only one protocol can express: text is HTTP/1.1 word for word, fields are those of HTTP/2.
	text   string
	fields []string
}

// group is one table of the document.
type group struct {
	title, intro string
	rule         rule
	tokens       bool // sent to the gate that knows users by tokens and trusts ::1
	rows         []attack
}

func attacks() []group {
	return []group{
		{
			title: "Other forms of `/run`", rule: noJob,
			intro: "A trusted proxy names the caller, whose bucket is empty. No request starts a job: the gate takes it for `/run` (429), the API\ntakes it for another path (404), or Envoy refuses it.",
			rows:  paths(),
		},
		{
			title: "Other methods, other routes, two requests in one", rule: noJob,
			intro: "From the same caller.",
			rows:  requests(),
		},
		{
			title: "Whatever is not guarded", rule: passes,
			intro: "From the same caller, whose bucket is empty. None of these requests is stopped.",
			rows:  benign(),
		},
		{
			title: "A client that writes headers of proxies", rule: charged,
			intro: "The client connects to Envoy from an address that is not in `TRUSTED_PROXIES`. Its bucket is empty, and no header gets it\nanother bucket.",
			rows:  spoofed(),
		},
		{
			title: "A client that breaks HTTP, or sends very much", rule: noJob,
			intro: "From the same client.",
			rows:  malformed(),
		},
		{
			title: "Another spelling of the same client", rule: charged,
			intro: "A trusted proxy has named the client A (or one in the network N) in the usual form before, and now names it in another\nform. It is the same bucket, and it is empty.",
			rows:  spellings(),
		},
		{
			title: "Another client", rule: another,
			intro: "A trusted proxy names other clients after A has emptied its bucket. Their buckets are full.",
			rows:  others(),
		},
		{
			title: "A name that can't be read", rule: charged,
			intro: "A trusted proxy names no client for sure. The bucket is that of the last hop that can be believed: here the address of this\nmachine, which Envoy appends to X-Forwarded-For.",
			rows:  nameless(),
		},
		{
			title: "Users that a client makes up", rule: charged,
			intro: "The bucket of the address counts for every user: A's is empty, whichever user A claims to be.",
			rows:  users(),
		},
		{
			title: "Somebody else's tokens", rule: spared, tokens: true,
			intro: "With `USER_ID_SOURCES=jwt`. The victim has a verified token. Each request names the victim, from another address. A 202 costs\na token of the sender's address; the bucket of the victim stays full.",
			rows:  victims(),
		},
		{
			title: "The same token, the same bucket", rule: charged, tokens: true,
			intro: "A user whose bucket is empty sends a verified token from another address.",
			rows:  tokens(),
		},
	}
}

// code returns text as code for a table, in which a bar must be escaped.
func code(text string) string { return "`" + strings.ReplaceAll(text, "|", `\|`) + "`" }
