package authz

import (
	"fmt"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

// FailureMode decides a request for which a check can't be made.
type FailureMode string

// The failure modes.
const (
	// FailLocal has the buckets of this process decide. It is for the limits alone.
	FailLocal FailureMode = "local"
	// FailAllow lets the request pass.
	FailAllow FailureMode = "allow"
	// FailDeny denies the request with a 503.
	FailDeny FailureMode = "deny"
)

// HeaderForm is the form of the response headers that tell a client about its bucket.
type HeaderForm string

// The forms of the headers.
const (
	// HeadersDraft is that of the IETF draft: RateLimit and RateLimit-Policy.
	HeadersDraft HeaderForm = "draft"
	// HeadersLegacy is the older one: X-RateLimit-Limit, -Remaining and -Reset.
	HeadersLegacy HeaderForm = "legacy"
	// HeadersOff sends none.
	HeadersOff HeaderForm = "off"
)

// Config says who a caller is and which checks are made.
type Config struct {
	// LimitEnabled switches the rate limits on. If it is false, the queue alone is checked.
	LimitEnabled bool `env:"RATE_LIMIT_ENABLED" envDefault:"true"`
	// LimitFailureMode decides while the shared buckets can't be asked.
	LimitFailureMode FailureMode `env:"RATE_LIMIT_FAILURE_MODE" envDefault:"local"`
	// QueueFailureMode decides while the state of the queue is unknown: allow or deny.
	QueueFailureMode FailureMode `env:"QUEUE_FAILURE_MODE" envDefault:"allow"`
	// Headers is the form of the headers that tell a client about its bucket.
	Headers HeaderForm `env:"RATE_LIMIT_HEADERS" envDefault:"draft"`
	// ClientIPHeader names the header in which a trusted proxy sends the address of the
	// client, as CF-Connecting-IP does. If it is empty, X-Forwarded-For alone is read.
	ClientIPHeader string `env:"CLIENT_IP_HEADER" envDefault:"CF-Connecting-IP"`
	// TrustedProxies are the peers whose headers are believed, such as 10.0.0.0/8.
	TrustedProxies Proxies `env:"TRUSTED_PROXIES" envDefault:"127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,unix"`
	// UserSources are where a request may name its user. The first source that names one
	// decides.
	UserSources UserSources `env:"USER_ID_SOURCES" envDefault:"header,query"`
	// JWTPayload is the payload_in_metadata of Envoy's jwt_authn provider: the key of the
	// metadata that holds the claims.
	JWTPayload string `env:"JWT_PAYLOAD_KEY" envDefault:"jwt_payload"`
	// JWTUserClaim is the claim that names the user.
	JWTUserClaim string `env:"JWT_USER_CLAIM" envDefault:"sub"`
	// JWTTierClaim is the claim that makes a caller premium if its value is "premium". If
	// it is empty, no token does.
	JWTTierClaim string `env:"JWT_TIER_CLAIM"`
	// RedisTimeout bounds the time that one Check waits for Redis, over all exchanges.
	RedisTimeout time.Duration `env:"REDIS_TIMEOUT" envDefault:"100ms"`
	// MaxChecks bounds the number of Checks at the same time. The failure modes decide
	// those above it, at once.
	MaxChecks int `env:"MAX_CONCURRENT_CHECKS" envDefault:"4096"`
}

// Validate returns every mistake. Each begins with the name of its variable.
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

// notToken says that the name of a header can't hold r (RFC 9110, section 5.6.2).
func notToken(r rune) bool {
	letterOrDigit := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letterOrDigit && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}
