package e2e_test

import "strings"

// rule is what must come of an attack, whatever it looks like to the client.
type rule int

const (
	noJob   rule = iota // the API starts no job
	charged             // 429 from the gate: it is the same bucket, and that is empty
	passes              // neither 429 nor 503: it is nothing that the gate guards
	another             // 202: it is another caller, whose bucket is full
	spared              // whoever tries, the victim's bucket is full afterwards
)

// from is who sends, as Envoy sees it.
type from string

const (
	proxy       from = "127.0.0.1"           // trusted, over IPv4
	client      from = "a client"            // an address of its own, over IPv4, untrusted
	mapped      from = "a client, by ::ffff" // the same at a listener of IPv6, where it is IPv4 in IPv6
	mappedProxy from = "127.0.0.1, by ::ffff"
	six         from = "::1" // untrusted, or trusted behind the gate of tokens
)

// attack is a row: spend is sent until the bucket is empty, then try. {A}, {B} are IPv4 addresses, {N} the first half of
// an IPv6 address and {u} a user that no other row uses, {token …} are tokens.
type attack struct {
	from    from
	spend   []string // headers of POST /run; nil: those of try
	line    string   // "" is POST /run
	headers []string
	say     string // instead of line and headers
	// Where only one protocol can say it: text is HTTP/1.1 word for word, fields are HTTP/2's.
	text   string
	fields []string
}

// group is one table of the document.
type group struct {
	title, intro string
	rule         rule
	tokens       bool // at the gate that knows users by tokens, and trusts ::1
	rows         []attack
}

func attacks() []group {
	return []group{
		{
			title: "Other forms of `/run`", rule: noJob,
			intro: "By a caller whose bucket is empty, named by a trusted proxy. None starts a job: the gate takes it for `/run` (429), or it is\nanother path for the API (404), or Envoy refuses it.",
			rows:  paths(),
		},
		{
			title: "Other methods, other routes, two requests in one", rule: noJob,
			intro: "Likewise.",
			rows:  requests(),
		},
		{
			title: "Whatever is not guarded", rule: passes,
			intro: "By the same caller, whose bucket is empty: nothing of this is stopped.",
			rows:  benign(),
		},
		{
			title: "A client that writes headers of proxies", rule: charged,
			intro: "Connected to Envoy from an address that is not in `TRUSTED_PROXIES`. Its own bucket is empty, and nothing it writes gets it\nanother.",
			rows:  spoofed(),
		},
		{
			title: "A client that writes what is no HTTP, or very much", rule: noJob,
			intro: "Likewise.",
			rows:  malformed(),
		},
		{
			title: "Another spelling of the same client", rule: charged,
			intro: "By a trusted proxy, which named the client A (or one in the network N) before in the usual form. It is the same bucket,\nand it is empty.",
			rows:  spellings(),
		},
		{
			title: "Another client", rule: another,
			intro: "By a trusted proxy, after A's bucket was emptied: these are others, and A's emptiness is not theirs.",
			rows:  others(),
		},
		{
			title: "A name that is no good", rule: charged,
			intro: "By a trusted proxy that names nobody for sure: the bucket is that of the last hop that can be believed, here this machine's\nown address, which Envoy appends to X-Forwarded-For.",
			rows:  nameless(),
		},
		{
			title: "Users that a client makes up", rule: charged,
			intro: "A user never saves the address: A's bucket is empty, whoever A says to be.",
			rows:  users(),
		},
		{
			title: "Somebody else's tokens", rule: spared, tokens: true,
			intro: "With `USER_ID_SOURCES=jwt`. The victim has a verified token; each of these names the victim, from another address. A 202\nspends what the sender's own address has; the victim's bucket stays full.",
			rows:  victims(),
		},
		{
			title: "The same token, the same bucket", rule: charged, tokens: true,
			intro: "A user with a token whose bucket is empty, from another address.",
			rows:  tokens(),
		},
	}
}

// code is text as code, which in a table may not hold a bar.
func code(text string) string { return "`" + strings.ReplaceAll(text, "|", `\|`) + "`" }
