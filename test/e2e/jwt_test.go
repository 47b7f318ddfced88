package e2e_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// TestUsersByToken has Envoy verify real tokens: with USER_ID_SOURCES=jwt nobody spends another's tokens, whatever name
// he gives himself.
func TestUsersByToken(t *testing.T) {
	t.Parallel()
	key, stranger := rsaKey(t), rsaKey(t)
	s := e2e.Start(t, e2e.Options{Config: withJWT(t, &key.PublicKey), NoRedis: true, Settings: map[string]string{
		"USER_ID_SOURCES": "jwt", "JWT_TIER_CLAIM": "plan", "RATE_LIMIT_RUN_BURST": "3", "RATE_LIMIT_RUN_PER_MINUTE": "1",
		"RATE_LIMIT_PREMIUM_MULTIPLIER": "2",
	}})
	ann, bob, premium := bearer(t, key, "ann", ""), bearer(t, key, "bob", ""), bearer(t, key, "eve", "premium")
	post := func(want int, headers ...string) {
		t.Helper()
		if r := s.Post(t, "/run", headers...); r.Status != want {
			t.Errorf("%v: got %d %s, want %d", headers, r.Status, r.Body, want)
		}
	}

	// A stranger says that he is ann, in every way he can, and from many addresses.
	for range 4 {
		for _, said := range []string{"X-User-ID: ann", "X-UserID: ann", "Sub: ann"} {
			post(http.StatusAccepted, e2e.Caller(t), said)
		}
		if r := s.Post(t, "/run?user_id=ann", e2e.Caller(t)); r.Status != http.StatusAccepted {
			t.Errorf("by query: got %d", r.Status)
		}
	}
	post(http.StatusUnauthorized, e2e.Caller(t), bearer(t, stranger, "ann", ""))
	post(http.StatusUnauthorized, e2e.Caller(t), "Authorization: Bearer "+strings.Repeat("x", 20))

	// ann still has all of hers, and they are hers from any address.
	for range 3 {
		post(http.StatusAccepted, e2e.Caller(t), ann)
	}
	post(http.StatusTooManyRequests, e2e.Caller(t), ann)
	post(http.StatusTooManyRequests, e2e.Caller(t), ann, "X-User-ID: bob")
	post(http.StatusAccepted, e2e.Caller(t), bob)
	for range 6 {
		post(http.StatusAccepted, e2e.Caller(t), premium)
	}
	post(http.StatusTooManyRequests, e2e.Caller(t), premium)
}

// withJWT is envoy.yaml with what it has for tokens switched on.
func withJWT(t *testing.T, key *rsa.PublicKey) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e2e.Root(), e2e.ShippedConfig))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	jwks := filepath.Join(dir, "jwks.json")
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for marker, n := range map[string]int{"#jwt ": 14, "/etc/envoy/jwks.json": 1} {
		if got := strings.Count(config, marker); got != n {
			t.Fatalf("%q is in envoy.yaml %d times, want %d", marker, got, n)
		}
	}
	config = strings.NewReplacer("#jwt ", "", "/etc/envoy/jwks.json", jwks).Replace(config)
	file := filepath.Join(dir, "envoy.yaml")
	for name, content := range map[string]string{jwks: string(set), file: config} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// bearer is the header of a token that key has signed.
func bearer(t *testing.T, key *rsa.PrivateKey, user, plan string) string {
	t.Helper()
	return "Authorization: Bearer " + signed(t, key, map[string]any{"sub": user, "plan": plan})
}

// signed is a token that Envoy takes, if key is the one it knows and claims say nothing else.
func signed(t *testing.T, key *rsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{"iss": "https://auth.refrakt.example", "aud": "refrakt-api", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	text, err := jwt.Signed(signer).Claims(all).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
