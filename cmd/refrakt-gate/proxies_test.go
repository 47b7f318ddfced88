package main

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// TestProxyExamples runs the settings that docs/envoy-settings.md gives for two public
// hops: each client has a bucket of its own, whatever it writes itself. Without them
// all clients share one.
func TestProxyExamples(t *testing.T) {
	const doc = "../../docs/envoy-settings.md"
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for heading, tt := range map[string]struct {
		peer    string
		headers func(client string) map[string]string // as they are when Envoy asks the gate
	}{
		"Google Cloud, external Application Load Balancer": {"35.191.0.9", func(client string) map[string]string {
			return map[string]string{"x-forwarded-for": "6.6.6.6, " + client + ", 203.0.113.80, 35.191.0.9"}
		}},
		"CloudFront before an Application Load Balancer": {"10.0.1.5", func(client string) map[string]string {
			return map[string]string{
				"x-forwarded-for":           "6.6.6.6, " + client + ", 130.176.0.1, 10.0.1.5",
				"cloudfront-viewer-address": client + ":46532",
			}
		}},
	} {
		_, section, found := strings.Cut(string(text), "\n### "+heading+"\n")
		block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(section)
		if !found || block == nil {
			t.Fatalf("%s has no settings for %s", doc, heading)
		}
		settings := make(map[string]string)
		for line := range strings.Lines(block[1]) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			settings[name] = value
		}
		for _, name := range []string{"TRUSTED_PROXIES", "CLIENT_IP_HEADER"} {
			if _, ok := settings[name]; !ok {
				t.Errorf("%s: %s is not set", heading, name)
			}
		}
		for _, as := range []struct {
			settings map[string]string
			apart    bool
		}{{settings, true}, {nil, false}} {
			environ := map[string]string{"RATE_LIMIT_RUN_BURST": "1", "RATE_LIMIT_RUN_PER_MINUTE": "1"}
			maps.Copy(environ, as.settings)
			cfg, errs := loadConfig(environ)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			g, err := newGate(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.close)
			limited := func(client string) bool {
				t.Helper()
				resp, err := g.checks.Check(t.Context(), checkCmd{Path: "/run", Method: "POST", IP: tt.peer, Header: tt.headers(client)}.request())
				if err != nil {
					t.Fatal(err)
				}
				return resp.GetStatus().GetCode() == int32(codes.PermissionDenied)
			}
			var got []bool
			clients := []string{"198.51.100.1", "198.51.100.1", "198.51.100.2", "2001:db8:1:2:3:4:5:9", "2001:db8:1:2:ff:4:5:9", "2001:db8:1:3:3:4:5:9"}
			for _, client := range clients {
				got = append(got, limited(client))
			}
			want := []bool{false, true, false, false, true, false} // the fifth is in the fourth's /64
			if !as.apart {
				want = []bool{false, true, true, true, true, true}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s, with %v: limited %v, want %v", heading, as.settings, got, want)
			}
		}
	}
}
