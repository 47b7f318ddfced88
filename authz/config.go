package authz

import (
	"fmt"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// FailureMode says what becomes of a request when a check can't be made.
type FailureMode string

// The failure modes. Local is for the buckets only: this process's own decide.
const (
	FailLocal FailureMode = "local"
	FailAllow FailureMode = "allow"
	FailDeny  FailureMode = "deny"
)

// HeaderForm says how a client is told about its bucket.
type HeaderForm string

// The header forms: of the IETF draft (RateLimit, RateLimit-Policy), the older
// X-RateLimit-* ones, or none.
const (
	HeadersDraft  HeaderForm = "draft"
	HeadersLegacy HeaderForm = "legacy"
	HeadersOff    HeaderForm = "off"
)

// Config says who a caller is and what is enforced.
type Config struct {
	LimitEnabled bool `env:"RATE_LIMIT_ENABLED" envDefault:"true"`
	Switches
	LimitFailureMode FailureMode `env:"RATE_LIMIT_FAILURE_MODE" envDefault:"local"`
	QueueFailureMode FailureMode `env:"QUEUE_FAILURE_MODE" envDefault:"allow"`
	Headers          HeaderForm  `env:"RATE_LIMIT_HEADERS" envDefault:"draft"`
	// ClientIPHeader is a header with the client's address that trusted proxies
	// set; empty: only X-Forwarded-For is read.
	ClientIPHeader string  `env:"CLIENT_IP_HEADER" envDefault:"CF-Connecting-IP"`
	TrustedProxies Proxies `env:"TRUSTED_PROXIES" envDefault:"127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,unix"`
	// UserSources is where a user is looked for, in order.
	UserSources UserSources `env:"USER_ID_SOURCES" envDefault:"header,query"`
	// JWTPayload is the payload_in_metadata of Envoy's jwt_authn provider; the claims
	// are looked for there. An empty JWTTierClaim: no token makes a caller premium.
	JWTPayload   string `env:"JWT_PAYLOAD_KEY" envDefault:"jwt_payload"`
	JWTUserClaim string `env:"JWT_USER_CLAIM" envDefault:"sub"`
	JWTTierClaim string `env:"JWT_TIER_CLAIM"`
	// RedisTimeout bounds all that one Check waits for Redis.
	RedisTimeout time.Duration `env:"REDIS_TIMEOUT" envDefault:"100ms"`
	// MaxChecks bounds the Checks under way; those beyond are decided at once, by
	// the failure modes.
	MaxChecks int `env:"MAX_CONCURRENT_CHECKS" envDefault:"4096"`
}

// Validate returns every mistake, each beginning with its variable's name.
func (c Config) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("RATE_LIMIT_FAILURE_MODE", settings.OneOf(c.LimitFailureMode, FailLocal, FailAllow, FailDeny))
	mistakes.Add("QUEUE_FAILURE_MODE", settings.OneOf(c.QueueFailureMode, FailAllow, FailDeny))
	mistakes.Add("RATE_LIMIT_HEADERS", settings.OneOf(c.Headers, HeadersDraft, HeadersLegacy, HeadersOff))
	if strings.ContainsFunc(c.ClientIPHeader, notToken) {
		mistakes.Add("CLIENT_IP_HEADER", fmt.Errorf("%q is not the name of a header", c.ClientIPHeader))
	}
	mistakes.Add("REDIS_TIMEOUT", settings.Within(c.RedisTimeout, time.Millisecond, time.Minute))
	mistakes.Add("MAX_CONCURRENT_CHECKS", settings.Within(c.MaxChecks, 1, 1_000_000))
	return mistakes
}

// notToken says that r may not stand in a header's name (RFC 9110, section 5.6.2).
func notToken(r rune) bool {
	letterOrDigit := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letterOrDigit && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}
