package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	day  = 24 * time.Hour
	year = 366 * day
)

// The bounds of what a file may say. Those of single values are far from any sensible
// value; they catch a wrong unit. schema.json has them too.
const (
	maxBurst = 1_000_000
	// maxPerMinute also bounds the rate of the tier with the largest factor. Buckets are
	// exact to far less than 0.1 % at this rate.
	maxPerMinute = 1_000_000
	// maxFill is how long the slowest bucket may take to be full.
	maxFill      = 730 * day
	minFactor    = 1
	maxFactor    = 1_000
	maxPending   = 1_000_000_000
	maxAge       = year
	minFairShare = 0.01
	maxFairShare = 100

	maxPolicies = 1_000
	maxQueues   = 100
	// maxTiers: each bucket of each policy has a limit for each tier, and package quota has
	// room for half a million limits.
	maxTiers   = 50
	maxBuckets = 8
	maxMatch   = 100
	// maxPatterns bounds the patterns of all policies: the time to compare all with all
	// grows with their square.
	maxPatterns = 5_000

	// maxName is the length of the longest name of a policy, a bucket or a tier.
	maxName = 63
	// maxPattern is the length of the longest pattern.
	maxPattern = 1_000
	// maxQueueName and maxUser are lengths in bytes.
	maxQueueName = 256
	maxUser      = 256
)

func validQueueName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxQueueName:
		return fmt.Errorf("the name has %d bytes, more than %d", len(name), maxQueueName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("%q contains spaces or control characters", name)
	}
	return nil
}
