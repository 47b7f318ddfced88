package policy_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

// everything is a file with all that a file can say.
const everything = `# Comments are welcome.
tiers:
  premium: 3
  batch: 2.5
queues:
  default:
    max_pending: 40
    max_age: 10m
    reserve: {tiers: [premium], share: 0.2}
    fair_share: 1
    shadow: false
  "two":
    max_age: 90s
    shadow: true
policies:
  run:
    match: ["POST /run", "POST /run/"]
    queue: default
    becomes_job: true
    buckets:
    - {per: ip, burst: 10, rate: 6/m}
    - {per: user, burst: 10, rate: 6/m}
    - {per: user, burst: 200, rate: 200/d, name: day}
    - {per: all, burst: 300, rate: 5/s, tiered: false, name: total}
    shadow: limits
  named-by_envoy2: {queue: two, shadow: queue}
  off:
    buckets: [{per: all, burst: 1, rate: 1/h}]
    shadow: true
callers:
- {ip: 192.0.2.0/24, then: exempt}
- {ip: "2001:db8::1", then: deny}
- {ip: "::/0", then: {tier: plain}}
- {user: mallory, then: deny}
- {user: "7", then: {tier: batch}}
`

func parse(t *testing.T, content string) *policy.File {
	t.Helper()
	f, mistakes := policy.Parse([]byte(content))
	if len(mistakes) > 0 {
		t.Fatalf("%v in\n%s", mistakes, content)
	}
	return f
}

func TestParse(t *testing.T) {
	t.Parallel()
	want := &policy.File{
		Tiers: []policy.Tier{{Name: "premium", Factor: 3}, {Name: "batch", Factor: 2.5}},
		Queues: []policy.Queue{
			{Name: "default", MaxPending: 40, MaxAge: 10 * time.Minute, Reserve: policy.Reserve{Tiers: []string{"premium"}, Share: 0.2}, FairShare: 1},
			{Name: "two", MaxAge: 90 * time.Second, Shadow: true},
		},
		Policies: []policy.Policy{
			{
				Name: "run", Match: []string{"POST /run", "POST /run/"}, Queue: "default", BecomesJob: true,
				Buckets: []policy.Bucket{
					{Per: policy.PerIP, Burst: 10, Rate: policy.Rate{Count: 6, Unit: time.Minute}, Tiered: true},
					{Per: policy.PerUser, Burst: 10, Rate: policy.Rate{Count: 6, Unit: time.Minute}, Tiered: true},
					{Per: policy.PerUser, Name: "day", Burst: 200, Rate: policy.Rate{Count: 200, Unit: 24 * time.Hour}, Tiered: true},
					{Per: policy.PerAll, Name: "total", Burst: 300, Rate: policy.Rate{Count: 5, Unit: time.Second}},
				},
				Shadow: policy.Shadow{Limits: true},
			},
			{Name: "named-by_envoy2", Queue: "two", Shadow: policy.Shadow{Queue: true}},
			{
				Name: "off", Buckets: []policy.Bucket{{Per: policy.PerAll, Burst: 1, Rate: policy.Rate{Count: 1, Unit: time.Hour}, Tiered: true}},
				Shadow: policy.Shadow{Limits: true, Queue: true},
			},
		},
		Callers: []policy.Caller{
			{IP: netip.MustParsePrefix("192.0.2.0/24"), Then: policy.Treatment{Exempt: true}},
			{IP: netip.MustParsePrefix("2001:db8::1/128"), Then: policy.Treatment{Deny: true}},
			{IP: netip.MustParsePrefix("::/0"), Then: policy.Treatment{Tier: "plain"}},
			{User: "mallory", Then: policy.Treatment{Deny: true}},
			{User: "7", Then: policy.Treatment{Tier: "batch"}},
		},
	}
	for name, content := range map[string]string{
		"the file":           everything,
		"its own form":       string(want.YAML()),
		"with a BOM":         "\ufeff" + everything,
		"with CRLF":          strings.ReplaceAll(everything, "\n", "\r\n"),
		"in reverse":         reversed(everything),
		"a document":         "---\n" + everything + "...\n",
		"with spaces behind": strings.ReplaceAll(everything, "\n", "  \n"),
	} {
		if got := parse(t, content); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got.YAML(), want.YAML())
		}
	}
}

// reversed is a file with its sections in the other order: what they refer to comes later.
func reversed(content string) string {
	var sections []string
	for line := range strings.Lines(content) {
		if len(sections) == 0 || line[0] >= 'a' && line[0] <= 'z' {
			sections = append([]string{""}, sections...)
		}
		sections[0] += line
	}
	return strings.Join(sections, "")
}

// testdata/mistakes.txt has files and, after =>, what is wrong with each.
func TestMistakes(t *testing.T) {
	t.Parallel()
	cases, err := os.ReadFile("testdata/mistakes.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range strings.Split(string(cases), "\n## ")[1:] {
		name, rest, _ := strings.Cut(c, "\n")
		content, want, _ := strings.Cut(rest, "=>\n")
		checkMistakes(t, name, content, strings.TrimSpace(want))
	}

	head := "policies: {a: {buckets: [{per: ip, burst: 1, rate: 1/m}]}}\n"
	for name, tt := range map[string]struct{ content, want string }{
		"empty":               {"", "the file is empty"},
		"only a BOM":          {"\ufeff", "the file is empty"},
		"not UTF-8":           {"policies:\n  a: \xff\n", "2:6: the file is not UTF-8 here"},
		"UTF-16":              {"\xff\xfea\x00:\x00 \x001\x00", "1:1: the file is not UTF-8 here"},
		"a control character": {"a: \x01\n", "the file is not YAML: control characters are not allowed (value: 1)"},
		"too large":           {strings.Repeat("#", 16<<20+1), "the file is larger than 16 MiB"},
		"too many nodes":      {strings.Repeat("[],", 750_001), "the file has more than 750,000 keys, values and lines"},
		"too deep":            {strings.Repeat("[", 100_000), "1:10001: the file is not YAML: exceeded max depth of 10000"},
		"a long pattern": {
			"policies: {a: {match: [/" + strings.Repeat("a", 1000) + "], buckets: [{per: ip, burst: 1, rate: 1/m}]}}\n",
			`1:24: match: "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…": the pattern has more than 1,000 bytes`,
		},
		"more patterns than a policy has": {
			"policies: {a: {match: [" + strings.Repeat("/a, ", 101) + "], buckets: [{per: ip, burst: 1, rate: 1/m}]}}\n",
			"1:23: match: there are 101, more than 100",
		},
		"more tiers than a file has":    {"tiers:\n" + numbered("  t%d: 2\n", 101) + head, "2:3: tiers: there are 101, more than 50"},
		"more queues than a file has":   {"queues:\n" + numbered("  q%d: {max_pending: 1}\n", 101) + head, "2:3: queues: there are 101, more than 100"},
		"more policies than a file has": {"policies:\n" + numbered("  p%d: {buckets: [{per: ip, burst: 1, rate: 1/m}]}\n", 10_000), "2:3: policies: there are 10,000, more than 1,000"},
		"more patterns than a file has": {
			"policies:\n" + numbered("  p%[1]d: {match: ["+numbered("/%[1]d/p%%[1]d, ", 6)+"], buckets: [{per: ip, burst: 1, rate: 1/m}]}\n", 1000),
			"835:36: match: there are 6,000 patterns in the file, more than 5,000",
		},
	} {
		checkMistakes(t, name, tt.content, tt.want)
	}

	if _, mistakes := policy.Parse([]byte(head + "callers:\n" + strings.Repeat("- {user: ann}\n", 25))); len(mistakes) != 21 || mistakes[20].Error() != "and 5 more" {
		t.Errorf("of 25 mistakes, got %v", mistakes)
	}
}

func checkMistakes(t *testing.T, name, content, want string) {
	t.Helper()
	f, mistakes := policy.Parse([]byte(content))
	var got []string
	for _, m := range mistakes {
		got = append(got, m.Error())
	}
	if strings.Join(got, "\n") != want || f != nil {
		t.Errorf("%s: got\n%s\nwant\n%s\nin\n%.500s", name, strings.Join(got, "\n"), want, content)
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// What is at the bounds is no mistake.
func TestParseBounds(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"the highest rate":            "policies: {a: {buckets: [{per: ip, burst: 1000000, rate: 1000000/m}]}}",
		"the highest rate of a tier":  "tiers: {x: 1000}\npolicies: {a: {buckets: [{per: ip, burst: 1000000, rate: 1000/m}]}}",
		"tiers do not count":          "tiers: {x: 1000}\npolicies: {a: {buckets: [{per: ip, burst: 1, rate: 1000000/m, tiered: false}]}}",
		"the highest rates in units":  "policies: {a: {buckets: [{per: ip, burst: 1, rate: 16666/s}, {per: ip, name: h, burst: 1, rate: 60000000/h}, {per: ip, name: d, burst: 1, rate: 1440000000/d}]}}",
		"the slowest bucket":          "policies: {a: {buckets: [{per: ip, burst: 730, rate: 1/d}]}}",
		"the same rate in two units":  "policies: {a: {buckets: [{per: ip, burst: 1, rate: 60/m}, {per: user, burst: 1, rate: 1/s}]}}",
		"the same name of two kinds":  "policies: {a: {buckets: [{per: ip, burst: 1, rate: 1/m, name: x}, {per: user, burst: 1, rate: 1/m, name: x}]}}",
		"factors":                     "tiers: {x: 1, y: 1000}\npolicies: {a: {buckets: [{per: ip, burst: 1, rate: 1/m}]}}",
		"a queue that is never full":  "queues: {q: {max_pending: 0, max_age: 0}}\npolicies: {a: {queue: q}}",
		"the largest queue":           "queues: {q: {max_pending: 1000000000, max_age: 8784h, fair_share: 100}}\npolicies: {a: {queue: q}}",
		"the smallest share":          "queues: {q: {max_pending: 101, fair_share: 0.01}}\npolicies: {a: {queue: q}}",
		"a reserve of age alone":      "tiers: {x: 2}\nqueues: {q: {max_age: 1m, reserve: {tiers: [x], share: 0.5}}}\npolicies: {a: {queue: q}}",
		"a reserve of one place":      "tiers: {x: 2}\nqueues: {q: {max_pending: 2, reserve: {tiers: [x], share: 0.5}}}\npolicies: {a: {queue: q}}",
		"a reserve of all but one":    "tiers: {x: 2}\nqueues: {q: {max_pending: 10, reserve: {tiers: [x], share: 0.9}}}\npolicies: {a: {queue: q}}",
		"a long name":                 "policies: {" + strings.Repeat("a", 63) + ": {buckets: [{per: ip, burst: 1, rate: 1/m}]}}",
		"names in other places":       "tiers: {none: 2, probe: 2}\nqueues: {plain: {}}\npolicies: {plain: {queue: plain}}",
		"an empty list of callers":    "policies: {a: {buckets: [{per: ip, burst: 1, rate: 1/m}]}}\ncallers: []",
		"a policy that matches all":   "policies: {a: {match: [/], buckets: [{per: ip, burst: 1, rate: 1/m}]}}",
		"an explicit core tag":        "policies: !!map {a: {buckets: !!seq [{per: !!str ip, burst: !!int 1, rate: 1/m}]}}",
		"an escape that is not valid": "policies: {a: {match: [/100%, /a%zz], buckets: [{per: ip, burst: 1, rate: 1/m}]}}",
		"a name of another case":      "queues: {Default: {}, default: {}}\npolicies: {a: {queue: Default}}",
	} {
		if _, mistakes := policy.Parse([]byte(content)); len(mistakes) > 0 {
			t.Errorf("%s: %v", name, mistakes)
		}
	}
}

// Names that YAML could take for something else, or for a part of its syntax, are written in
// quotes.
func TestWriteNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"null", "true", "no", "y", "~", "-", "a:", "a#b", "1", "1e3", ".5", "*x", "&x", "!x", "{}", "[", "'", "\"", "\\", "@", "%", "|", "ü", "\u2028", "\ufeff", "<<", "a,b", "=", "0x1f", "2020-01-01"} {
		f := &policy.File{
			Tiers:    []policy.Tier{{Name: "on", Factor: 1.0000001}},
			Queues:   []policy.Queue{{Name: "q" + name}, {Name: name, MaxAge: time.Nanosecond}},
			Policies: []policy.Policy{{Name: "no", Queue: name}, {Name: "null", Queue: "q" + name, Match: []string{"/" + name + "x"}}},
			Callers: []policy.Caller{
				{User: name, Then: policy.Treatment{Tier: "on"}}, {User: name + " ", Then: policy.Treatment{Deny: true}},
				{IP: netip.MustParsePrefix("::1/128"), Then: policy.Treatment{Exempt: true}}, {IP: netip.MustParsePrefix("1::/16"), Then: policy.Treatment{Exempt: true}},
				{IP: netip.MustParsePrefix("1::/128"), Then: policy.Treatment{Exempt: true}},
			},
		}
		if strings.ContainsAny(name, "{}#%*\u2028") {
			f.Policies[1].Match = nil // not a pattern
		}
		if strings.ContainsAny(name, "\u2028") {
			f.Queues, f.Policies[0].Queue, f.Policies[1].Queue = []policy.Queue{{Name: "q"}}, "q", "q" // not the name of a queue
		}
		if got := parse(t, string(f.YAML())); !reflect.DeepEqual(got, f) {
			t.Errorf("%q: got\n%s\nwant\n%s", name, got.YAML(), f.YAML())
		}
	}
}

func TestUnreserved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		maxPending int
		share      float64
		want       int
	}{{40, 0, 40}, {40, 0.2, 32}, {10, 0.9, 1}, {10, 0.05, 9}, {3, 0.5, 1}, {100, 0.07, 93}, {1_000_000_000, 0.1, 900_000_000}} {
		q := policy.Queue{MaxPending: tt.maxPending, Reserve: policy.Reserve{Share: tt.share}}
		if got := q.Unreserved(); got != tt.want {
			t.Errorf("of %d with a share of %v, %d are open to all, want %d", tt.maxPending, tt.share, got, tt.want)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", everything)
	link := filepath.Join(dir, "link.yaml")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{good, link} {
		f, errs := policy.Read(path)
		if len(errs) > 0 || len(f.Policies) != 3 {
			t.Errorf("%s: %v", path, errs)
		}
	}
	bad := write("bad.yaml", "tier: {}\npolicies:\n  a: {}\n")
	empty := write("empty.yaml", "")
	large := write("large.yaml", strings.Repeat("# "+strings.Repeat("x", 77)+"\n", 10<<20/80)+everything)
	if _, errs := policy.Read(large); len(errs) > 0 {
		t.Errorf("10 MB: %v", errs)
	}
	too := write("too.yaml", strings.Repeat("#", 17<<20))
	for path, want := range map[string]string{
		bad: bad + `:1:1: the file: unknown key "tier"; did you mean tiers? (known are tiers, queues, policies, callers)` + "\n" +
			bad + `:3:3: "a": has neither buckets nor a queue; it would limit nothing`,
		empty: empty + ": the file is empty",
		too:   too + ": the file is larger than 16 MiB",
		dir:   dir + ": is not a regular file",
	} {
		if _, errs := policy.Read(path); errors.Join(errs...) == nil || errors.Join(errs...).Error() != want {
			t.Errorf("got %v, want %s", errs, want)
		}
	}
	if _, errs := policy.Read(filepath.Join(dir, "missing.yaml")); len(errs) != 1 || !errors.Is(errs[0], fs.ErrNotExist) || !strings.Contains(errs[0].Error(), "missing.yaml") {
		t.Errorf("a missing file: %v", errs)
	}
}

// FuzzParse: whatever parses is the same after it was written, and can be compiled and put
// into words. Nothing takes long.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add(preset().File(true).YAML())
	f.Add([]byte("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n"))
	f.Add([]byte("policies:\n\ta: {}\n"))
	f.Add([]byte("\ufeffpolicies: {a: {match: [\"/{x}/b\", \"GET /{y...}\"], buckets: [{per: all, burst: 1, rate: 1/d}]}}"))
	f.Add([]byte("tiers: {x: .nan, y: -1, z: 1e18}\npolicies: {a: {buckets: [{per: ip, burst: 1e3, rate: 9223372036854775807/s}]}}"))
	f.Add([]byte("policies: {none: {}}\ncallers: [{ip: 192.0.2.1/8, then: {tier: x}}, {user: \"\\u2028\\\\\", then: deny}]"))
	f.Add([]byte("? [a, {b: c}]\n: !!binary |\n  aGk=\n---\n- 1\n"))
	if cases, err := os.ReadFile("testdata/mistakes.txt"); err == nil {
		for _, c := range strings.Split(string(cases), "\n## ")[1:] {
			_, rest, _ := strings.Cut(c, "\n")
			content, _, _ := strings.Cut(rest, "=>\n")
			f.Add([]byte(content))
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		started := time.Now()
		file, mistakes := policy.Parse(content)
		if took := time.Since(started); took > 10*time.Second {
			t.Fatalf("took %v", took)
		}
		if (file == nil) == (len(mistakes) == 0) {
			t.Fatalf("got %v and %v", file, mistakes)
		}
		if file == nil {
			for _, m := range mistakes {
				if len(m.Text) > 600 || m.Text == "" {
					t.Fatalf("a mistake of %d bytes: %q", len(m.Text), m.Text)
				}
			}
			return
		}
		again, mistakes := policy.Parse(file.YAML())
		if len(mistakes) > 0 {
			t.Fatalf("%v in\n%s", mistakes, file.YAML())
		}
		if !reflect.DeepEqual(file, again) {
			t.Fatalf("was\n%+v\nis\n%+v", file, again)
		}
		set := policy.Compile(file)
		set.Match("GET", string(content[:min(len(content), 100)]))
		set.OfIP(netip.MustParseAddr("192.0.2.1"))
		if len(file.Words()) == 0 {
			t.Fatal("no words")
		}
	})
}
