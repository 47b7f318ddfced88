package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestOtherSettings plays the attacks on Envoys with other settings than the gate expects. The rules still hold. Where the
// gate is stricter or could be weaker, it warns. docs/envoy-settings.md says the same in words.
func TestOtherSettings(t *testing.T) {
	api := e2e.StartWideAPI(t)
	const (
		normalize = "          normalize_path: true\n"
		merge     = "          merge_slashes: true\n"
		slashes   = "path_with_escaped_slashes_action: REJECT_REQUEST"
		keep      = "path_with_escaped_slashes_action: KEEP_UNCHANGED"
		raw       = "              encode_raw_headers: true\n"
		ip        = "                - exact: cf-connecting-ip # CLIENT_IP_HEADER\n"
		all       = ip + "                - safe_regex: {regex: .*}\n"
		forwarded = "                - exact: x-forwarded-for\n"
		named     = "                - exact: x-user-id\n                - exact: x-userid\n                - exact: x-ratelimit-tier\n"
		charge    = "              charge_cluster_response_stats: false\n"
		run       = "context_extensions: {policy: run}"
		assistant = "context_extensions: {policy: assistant}"
		remote    = "          use_remote_address: true\n"
	)
	const others, same, users = "Another client", "Another spelling of the same client", "Users that a client makes up"
	for name, tt := range map[string]struct {
		replace  map[string]string
		warnings []string
		skip     []string // groups with other outcomes
	}{
		"paths not normalised":      {replace: map[string]string{normalize: ""}, warnings: []string{"path"}},
		"slashes not merged":        {replace: map[string]string{merge: ""}, warnings: []string{"path"}},
		"escaped slashes kept":      {replace: map[string]string{slashes: keep}, warnings: []string{"path"}},
		"escaped slashes unescaped": {replace: map[string]string{slashes: "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD"}},
		"paths as they come":        {replace: map[string]string{normalize: "", merge: "", slashes: keep}, warnings: []string{"path"}},
		"no policies":               {replace: map[string]string{run: "", assistant: ""}},
		"no policies, raw paths":    {replace: map[string]string{run: "", assistant: "", normalize: "", merge: "", slashes: keep}, warnings: []string{"path"}},
		"another policy":            {replace: map[string]string{run: assistant}, warnings: []string{"policy"}},
		"raw headers off":           {replace: map[string]string{raw: ""}},
		"all headers":               {replace: map[string]string{ip: all}},
		"all of many headers":       {replace: map[string]string{ip: all, "max_headers_count: 100": "max_headers_count: 1000"}, warnings: []string{"headers"}},
		"no users":                  {replace: map[string]string{named: ""}, skip: []string{users}},
		// All clients of a proxy share its bucket.
		"no CLIENT_IP_HEADER":     {replace: map[string]string{ip: ""}, skip: []string{others, same}},
		"no X-Forwarded-For":      {replace: map[string]string{forwarded: ""}, skip: []string{others, same}},
		"no addresses":            {replace: map[string]string{ip: "", forwarded: ""}, skip: []string{others}},
		"no use_remote_address":   {replace: map[string]string{remote: ""}},
		"certificates and bodies": {replace: map[string]string{charge: charge + "              include_peer_certificate: true\n              with_request_body: {max_request_bytes: 1024, allow_partial_message: true}\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stage{jobs: new(sync.Map)}
			s.byHeaders = startFront(t, "", edited(t, e2e.ShippedConfig, tt.replace), api, map[string]string{
				"TRUSTED_PROXIES": "127.0.0.1," + ownAddresses(t),
			})
			for _, g := range attacks() {
				if g.tokens || slices.Contains(tt.skip, g.title) {
					continue
				}
				for _, a := range g.rows {
					if a.sayable(overHTTP1) {
						s.play(t, g, a, overHTTP1)
					}
				}
			}
			want := append(tt.warnings, "client")
			if _, taken := tt.replace[ip]; !taken || tt.replace[ip] == all {
				want = append(want, "client_ip_header") // a row sends it with what is no address
			}
			wantWarnings(t, s.byHeaders, want...)
		})
	}
}

// TestTokensNotHandedOver has an Envoy that verifies tokens and does not tell the gate. Users are known by their addresses
// then, and no client spends the tokens of another user. The metrics show that no user is known.
func TestTokensNotHandedOver(t *testing.T) {
	api := e2e.StartAPI(t, "")
	key, stranger := rsaKey(t), rsaKey(t)
	const namespaces, payload = "              metadata_context_namespaces: [envoy.filters.http.jwt_authn]\n", "payload_in_metadata: jwt_payload"
	for name, replace := range map[string]map[string]string{
		"no metadata":     {namespaces: ""},
		"another key":     {payload: "payload_in_metadata: payload"},
		"as it should be": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stage{key: key, stranger: stranger, jobs: new(sync.Map)}
			s.byTokens = startFront(t, "", edited(t, withJWT(t, &key.PublicKey), replace), api, map[string]string{
				"TRUSTED_PROXIES": "127.0.0.1,::1," + ownAddresses(t), "USER_ID_SOURCES": "jwt",
			})
			for _, g := range attacks() {
				if g.rule != spared {
					continue
				}
				for _, a := range g.rows {
					s.play(t, g, a, overHTTP1)
				}
			}
			users := func(from string) (n float64) {
				for series, value := range s.byTokens.gate.Metrics(t) {
					if strings.HasPrefix(series, "refrakt_gate_callers_total{") && strings.Contains(series, `user_from="`+from+`"`) {
						n += value
					}
				}
				return n
			}
			if got, want := users("jwt") > 0, len(replace) == 0; got != want {
				t.Errorf("callers known by tokens: %v, want %v", got, want)
			}
			if users("none") == 0 {
				t.Error("no caller without a token was counted")
			}
		})
	}
}

// edited returns a copy of an Envoy configuration with some text replaced. The text must be there.
func edited(t *testing.T, config string, replace map[string]string) string {
	t.Helper()
	if !filepath.IsAbs(config) {
		config = filepath.Join(e2e.Root(), config)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	edited := string(text)
	for from, to := range replace {
		if !strings.Contains(edited, from) {
			t.Fatalf("%q is not in %s", from, config)
		}
		edited = strings.ReplaceAll(edited, from, to)
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
