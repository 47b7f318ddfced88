package policy

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// YAML returns the file as text, which [Parse] reads back to the same File.
func (f *File) YAML() []byte {
	var b bytes.Buffer
	if len(f.Tiers) > 0 {
		b.WriteString("tiers:\n")
		for _, t := range f.Tiers {
			fmt.Fprintf(&b, "  %s: %s\n", scalar(t.Name), float(t.Factor))
		}
	}
	if len(f.Queues) > 0 {
		b.WriteString("queues:\n")
		for _, q := range f.Queues {
			q.write(&b)
		}
	}
	b.WriteString("policies:\n")
	for i := range f.Policies {
		f.Policies[i].write(&b)
	}
	if len(f.Callers) > 0 {
		b.WriteString("callers:\n")
		for _, c := range f.Callers {
			fmt.Fprintf(&b, "- {%s, then: %s}\n", c.subject(), c.Then)
		}
	}
	return b.Bytes()
}

func (q Queue) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "  %s:\n    max_pending: %d\n    max_age: %s\n", scalar(q.Name), q.MaxPending, short(q.MaxAge))
	if q.Reserve.Share > 0 {
		tiers := make([]string, len(q.Reserve.Tiers))
		for i, t := range q.Reserve.Tiers {
			tiers[i] = scalar(t)
		}
		fmt.Fprintf(b, "    reserve: {tiers: [%s], share: %s}\n", strings.Join(tiers, ", "), float(q.Reserve.Share))
	}
	if q.FairShare > 0 {
		fmt.Fprintf(b, "    fair_share: %s\n", float(q.FairShare))
	}
	if q.Shadow {
		b.WriteString("    shadow: true\n")
	}
}

func (p *Policy) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "  %s:\n", scalar(p.Name))
	if len(p.Match) > 0 {
		patterns := make([]string, len(p.Match))
		for i, m := range p.Match {
			patterns[i] = strconv.Quote(m)
		}
		fmt.Fprintf(b, "    match: [%s]\n", strings.Join(patterns, ", "))
	}
	if p.Queue != "" {
		fmt.Fprintf(b, "    queue: %s\n", scalar(p.Queue))
	}
	if p.BecomesJob {
		b.WriteString("    becomes_job: true\n")
	}
	if len(p.Buckets) > 0 {
		b.WriteString("    buckets:\n")
		for _, bucket := range p.Buckets {
			bucket.write(b)
		}
	}
	if shadow := p.Shadow.String(); shadow != "false" {
		fmt.Fprintf(b, "    shadow: %s\n", shadow)
	}
}

func (b Bucket) write(out *bytes.Buffer) {
	fmt.Fprintf(out, "    - {per: %s, burst: %d, rate: %s", b.Per, b.Burst, b.Rate)
	if b.Name != "" {
		fmt.Fprintf(out, ", name: %s", scalar(b.Name))
	}
	if !b.Tiered {
		out.WriteString(", tiered: false")
	}
	out.WriteString("}\n")
}

// String returns the shadow mode as a file has it.
func (s Shadow) String() string {
	switch s {
	case Shadow{Limits: true, Queue: true}:
		return "true"
	case Shadow{Limits: true}:
		return "limits"
	case Shadow{Queue: true}:
		return "queue"
	default:
		return "false"
	}
}

// String returns the rate as a file has it: 6/m.
func (r Rate) String() string {
	for letter, unit := range units {
		if unit == r.Unit {
			return strconv.FormatInt(r.Count, 10) + "/" + letter
		}
	}
	return fmt.Sprintf("%d per %s", r.Count, r.Unit)
}

// String returns the treatment as a file has it.
func (t Treatment) String() string {
	switch {
	case t.Deny:
		return "deny"
	case t.Exempt:
		return "exempt"
	default:
		return "{tier: " + scalar(t.Tier) + "}"
	}
}

// subject returns whom the entry is for, as a file has it.
func (c Caller) subject() string {
	switch {
	case c.User != "":
		return "user: " + scalar(c.User)
	case c.IP.IsSingleIP():
		return "ip: " + address(c.IP.Addr().String())
	default:
		return "ip: " + address(c.IP.String())
	}
}

// address quotes addresses that end in a colon, which would begin a mapping.
func address(s string) string {
	if strings.HasSuffix(s, ":") || strings.HasPrefix(s, ":") {
		return strconv.Quote(s)
	}
	return s
}

// scalar returns a text in quotes if YAML could take it for something else.
func scalar(s string) string {
	plain := s != "" && len(s) < maxName
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '_' && c != '-') {
			plain = false
		}
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		plain = false
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// float returns a number with as few digits as it needs.
func float(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// span writes a duration for people: 10m, 2 days.
func span(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + " days"
	}
	return short(d)
}
