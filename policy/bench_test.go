package policy_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

func BenchmarkMatch(b *testing.B) {
	set := policy.Compile(preset().File(true))
	for name, path := range map[string]string{
		"exact":     "/run",
		"query":     "/run?user_id=ann",
		"below":     "/assistant/chat",
		"unguarded": "/ping",
		"dots":      "/run/../x",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Match("POST", path)
			}
		})
	}
}

func BenchmarkCallers(b *testing.B) {
	content := manyCallers(100_000)
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, mistakes := policy.Parse(content)
			if mistakes != nil {
				b.Fatal(mistakes)
			}
			policy.Compile(f)
		}
	})
	f, _ := policy.Parse(content)
	set := policy.Compile(f)
	ip := netip.MustParseAddr("10.0.255.1")
	b.Run("address", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set.OfIP(ip)
		}
	})
	b.Run("user", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set.OfUser("user-77777")
		}
	})
}

// manyCallers is a file with exceptions for n callers, half of them addresses.
func manyCallers(n int) []byte {
	var b bytes.Buffer
	b.WriteString("tiers: {batch: 10}\npolicies:\n  api: {match: [/], buckets: [{per: ip, burst: 1, rate: 1/m}]}\ncallers:\n")
	for i := range n {
		if i%2 == 0 {
			fmt.Fprintf(&b, "- {ip: 10.%d.%d.%d, then: {tier: batch}}\n", i>>16&255, i>>8&255, i&255)
		} else {
			fmt.Fprintf(&b, "- {user: user-%d, then: exempt}\n", i)
		}
	}
	return b.Bytes()
}

// preset returns the settings as they are by default.
func preset() policy.Environment {
	return policy.Environment{
		RunBurst: 10, RunPerMinute: 6, AssistantPerMinute: 30, PremiumMultiplier: 3,
		QueueName: "default", MaxPending: 40, MaxAge: 600e9,
	}
}
