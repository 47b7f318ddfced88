package policy_test

import (
	"bytes"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

func TestSet(t *testing.T) {
	t.Parallel()
	f := parse(t, everything)
	set := policy.Compile(f)
	if set.File() != f || len(set.Policies()) != 3 {
		t.Fatalf("got %v", set.Policies())
	}
	for i, p := range set.Policies() {
		if p != &f.Policies[i] || set.Named(p.Name) != p {
			t.Errorf("policy %d is %v, named %v", i, p, set.Named(p.Name))
		}
	}
	for _, name := range []string{"", "none", "unknown", "Run", "run ", "default"} {
		if p := set.Named(name); p != nil {
			t.Errorf("Named(%q) = %v", name, p)
		}
	}
	if !set.HasUsers() || policy.Compile(preset().File(true)).HasUsers() {
		t.Error("HasUsers is wrong")
	}
}

func TestTier(t *testing.T) {
	t.Parallel()
	set := policy.Compile(parse(t, everything))
	type result struct {
		index int
		ok    bool
	}
	for name, want := range map[string]result{
		"plain": {0, true}, "premium": {1, true}, "batch": {2, true}, " Premium\t": {1, true}, "BATCH": {2, true}, "PLAIN": {0, true},
		"": {0, false}, "gold": {0, false}, "premium,batch": {0, false}, "prem ium": {0, false},
	} {
		if index, ok := set.Tier(name); (result{index, ok}) != want {
			t.Errorf("Tier(%q) = %d, %t, want %v", name, index, ok, want)
		}
	}
}

func TestExceptions(t *testing.T) {
	t.Parallel()
	set := policy.Compile(parse(t, `
tiers: {premium: 3, batch: 10}
policies: {a: {buckets: [{per: ip, burst: 1, rate: 1/m}]}}
callers:
- {ip: 192.0.2.0/24, then: exempt}
- {ip: 192.0.2.128/25, then: deny}
- {ip: 192.0.2.129, then: {tier: batch}}
- {ip: "2001:db8::/32", then: {tier: premium}}
- {ip: "2001:db8:0:1::/64", then: {tier: plain}}
- {ip: "::ffff:198.51.100.1", then: deny}
- {user: ann, then: {tier: premium}}
- {user: "192.0.2.1", then: deny}
`))
	type result struct {
		e  policy.Exception
		ok bool
	}
	none := result{}
	exempt := result{policy.Exception{Exempt: true, Tier: policy.NoTier}, true}
	deny := result{policy.Exception{Deny: true, Tier: policy.NoTier}, true}
	tier := func(i int) result { return result{policy.Exception{Tier: i}, true} }
	for address, want := range map[string]result{
		"192.0.2.1": exempt, "192.0.2.127": exempt, "192.0.2.128": deny, "192.0.2.129": tier(2), "192.0.3.1": none,
		"::ffff:192.0.2.1": exempt, "::192.0.2.1": none, "2001:db8::1": tier(1), "2001:db8:0:1::1": tier(0), "2001:db9::": none,
		"198.51.100.1": deny, "2001:db8::1%eth0": tier(1),
	} {
		if e, ok := set.OfIP(netip.MustParseAddr(address)); (result{e, ok}) != want {
			t.Errorf("OfIP(%s) = %v, %t, want %v", address, e, ok, want)
		}
	}
	if e, ok := set.OfIP(netip.Addr{}); ok {
		t.Errorf("no address: %v", e)
	}
	for user, want := range map[string]result{"ann": tier(1), "Ann": none, "": none, "192.0.2.1": deny, "192.0.2.2": none} {
		if e, ok := set.OfUser(user); (result{e, ok}) != want {
			t.Errorf("OfUser(%q) = %v, %t, want %v", user, e, ok, want)
		}
	}
}

// A file for 100,000 callers takes ten times as long as one for 10,000, not a hundred times.
// Allocations stand for the time: they are the same on each machine.
func TestManyCallers(t *testing.T) {
	load := func(content []byte) (set *policy.Set, allocations uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f, mistakes := policy.Parse(content)
		if len(mistakes) > 0 {
			t.Fatal(mistakes)
		}
		set = policy.Compile(f)
		runtime.ReadMemStats(&after)
		return set, after.Mallocs - before.Mallocs
	}
	_, few := load(manyCallers(10_000))
	set, many := load(manyCallers(100_000))
	if many > 12*few {
		t.Errorf("100,000 callers need %d allocations, and 10,000 need %d", many, few)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := set.OfIP(netip.MustParseAddr("10.1.134.158")); !ok {
			t.Fatal("the last address is not found")
		}
		if _, ok := set.OfUser("user-99999"); !ok {
			t.Fatal("the last user is not found")
		}
	}); n > 0 {
		t.Errorf("looking up a caller allocates %v times", n)
	}
}

func TestExamples(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../examples/policies/*.yaml")
	if err != nil || len(paths) != 3 {
		t.Fatalf("got %v, %v", paths, err)
	}
	for _, path := range paths {
		f, errs := policy.Read(path)
		if len(errs) > 0 {
			t.Error(errs)
			continue
		}
		if again := parse(t, string(f.YAML())); !reflect.DeepEqual(f, again) {
			t.Errorf("%s is another file after it was written:\n%s", path, f.YAML())
		}
		for _, words := range f.Words() {
			if strings.HasPrefix(words, "WARNING") {
				t.Errorf("%s: %s", path, words)
			}
		}
	}
	want, err := os.ReadFile("../examples/policies/preset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := preset().File(true).YAML(); !bytes.Equal(got, want) {
		t.Errorf("examples/policies/preset.yaml is not the preset, which is\n%s", got)
	}
}

func TestEnvironmentFile(t *testing.T) {
	t.Parallel()
	shadow := func(s string) (l policy.ShadowList) {
		if err := l.UnmarshalText([]byte(s)); err != nil {
			t.Fatal(err)
		}
		return l
	}
	other := policy.Environment{
		RunBurst: 1_000_000, RunPerMinute: 1, AssistantBurst: 7, AssistantPerMinute: 1000, PremiumMultiplier: 2.345,
		QueueName: `q:{"ü",#1}`, MaxPending: 0, MaxAge: 1500e6,
		Switches: policy.Switches{LimitShadow: shadow("run"), QueueShadow: shadow("run,assistant")},
	}
	lowest := preset()
	lowest.PremiumMultiplier = -1
	for name, tt := range map[string]struct {
		env   policy.Environment
		queue bool
		want  string // how it begins
	}{
		"default, no queue": {preset(), false, `tiers:
  premium: 3
policies:
  run:
    match: ["/run", "/run/"]
    buckets:
    - {per: ip, burst: 10, rate: 6/m}
    - {per: user, burst: 10, rate: 6/m}
  assistant:
    match: ["/assistant", "/assistant/"]
    buckets:
    - {per: ip, burst: 30, rate: 30/m}
    - {per: user, burst: 30, rate: 30/m}
`},
		"other settings": {other, true, `tiers:
  premium: 2.345
queues:
  "q:{\"ü\",#1}":
    max_pending: 0
    max_age: 1.5s
policies:
  run:
    match: ["/run", "/run/"]
    queue: "q:{\"ü\",#1}"
    becomes_job: true
    buckets:
    - {per: ip, burst: 1000000, rate: 1/m}
    - {per: user, burst: 1000000, rate: 1/m}
    shadow: true
  assistant:
    match: ["/assistant", "/assistant/"]
    queue: "q:{\"ü\",#1}"
    buckets:
    - {per: ip, burst: 7, rate: 1000/m}
    - {per: user, burst: 7, rate: 1000/m}
    shadow: queue
`},
		"a multiplier under 1": {lowest, false, "tiers:\n  premium: 1\n"},
	} {
		f := tt.env.File(tt.queue)
		got := string(f.YAML())
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, tt.want)
		}
		if !reflect.DeepEqual(parse(t, got), f) {
			t.Errorf("%s: is another file after it was written", name)
		}
		if errs := tt.env.Validate(); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestEnvironmentValidate(t *testing.T) {
	t.Parallel()
	wrong := policy.Environment{
		RunBurst: 0, RunPerMinute: 1_000_001, AssistantBurst: -1, AssistantPerMinute: 0, PremiumMultiplier: math.NaN(),
		QueueName: "a b", MaxPending: -1, MaxAge: -1,
	}
	fast := preset()
	fast.PremiumMultiplier, fast.RunPerMinute = 3, 400_000
	for name, tt := range map[string]struct {
		env  policy.Environment
		want []string
	}{
		"all wrong": {wrong, []string{
			"RATE_LIMIT_RUN_BURST: 0 is not between 1 and 1000000",
			"RATE_LIMIT_RUN_PER_MINUTE: 1000001 is not between 1 and 1000000",
			"RATE_LIMIT_ASSISTANT_BURST: -1 is not between 0 and 1000000",
			"RATE_LIMIT_ASSISTANT_PER_MINUTE: 0 is not between 1 and 1000000",
			"RATE_LIMIT_PREMIUM_MULTIPLIER: NaN is not a number of at most 1000",
			`QUEUE_NAME: "a b" contains spaces or control characters`,
			"QUEUE_MAX_PENDING: -1 is not between 0 and 1000000000",
			"QUEUE_MAX_AGE_SECONDS: -1ns is not between 0s and 8784h0m0s",
		}},
		"premium too fast": {fast, []string{"RATE_LIMIT_PREMIUM_MULTIPLIER: 3 times the larger of the rates is above 1000000 per minute"}},
		"fine":             {preset(), nil},
	} {
		var got []string
		for _, err := range tt.env.Validate() {
			got = append(got, err.Error())
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got\n%q\nwant\n%q", name, got, tt.want)
		}
	}
}
