package authz

import (
	"fmt"
	"slices"
	"strings"
	"time"
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
	var errs []error
	oneOf := func(name, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			errs = append(errs, fmt.Errorf("%s: %q is none of %s", name, value, strings.Join(allowed, ", ")))
		}
	}
	oneOf("RATE_LIMIT_FAILURE_MODE", string(c.LimitFailureMode), string(FailLocal), string(FailAllow), string(FailDeny))
	oneOf("QUEUE_FAILURE_MODE", string(c.QueueFailureMode), string(FailAllow), string(FailDeny))
	oneOf("RATE_LIMIT_HEADERS", string(c.Headers), string(HeadersDraft), string(HeadersLegacy), string(HeadersOff))
	if strings.ContainsFunc(c.ClientIPHeader, notToken) {
		errs = append(errs, fmt.Errorf("CLIENT_IP_HEADER: %q is not the name of a header", c.ClientIPHeader))
	}
	if c.RedisTimeout < time.Millisecond || c.RedisTimeout > time.Minute {
		errs = append(errs, fmt.Errorf("REDIS_TIMEOUT: %v is not between 1ms and 1m", c.RedisTimeout))
	}
	if c.MaxChecks < 1 || c.MaxChecks > 1_000_000 {
		errs = append(errs, fmt.Errorf("MAX_CONCURRENT_CHECKS: %d is not between 1 and 1000000", c.MaxChecks))
	}
	return errs
}

// notToken says that r may not stand in a header's name (RFC 9110, section 5.6.2).
func notToken(r rune) bool {
	letterOrDigit := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letterOrDigit && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}
