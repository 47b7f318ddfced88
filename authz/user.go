package authz

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	"github.com/refrakt-hub/refrakt-gate/policy"
)

// UserSource is where the user of a request was found.
type UserSource string

// The sources. Envoy has verified a token; header and query are claims of the client.
// With UserNone the request named no user, with UserAmbiguous no single one for sure:
// the caller is anonymous then.
const (
	UserJWT       UserSource = "jwt"
	UserHeader    UserSource = "header"
	UserQuery     UserSource = "query"
	UserNone      UserSource = "none"
	UserAmbiguous UserSource = "ambiguous"
)

// UserSources are asked in their order; the first that names a user decides. With the
// zero value no user is looked for, and every caller is anonymous.
type UserSources []UserSource

// UnmarshalText reads a comma-separated list such as "jwt,header". The word none, alone,
// is the empty list.
func (s *UserSources) UnmarshalText(text []byte) error {
	*s = nil
	if string(text) == "none" {
		return nil
	}
	for item := range strings.SplitSeq(string(text), ",") {
		source := UserSource(strings.TrimSpace(item))
		switch {
		case source != UserJWT && source != UserHeader && source != UserQuery:
			return fmt.Errorf("%q is none of jwt, header, query", string(source))
		case slices.Contains(*s, source):
			return errors.New(string(source) + " is there twice")
		}
		*s = append(*s, source)
	}
	return nil
}

// String returns the list in a form that UnmarshalText reads.
func (s UserSources) String() string {
	if len(s) == 0 {
		return "none"
	}
	items := make([]string, len(s))
	for i, source := range s {
		items[i] = string(source)
	}
	return strings.Join(items, ",")
}

// The subjects of users begin with their kind.
const (
	claimedUserKind  = "user:"
	verifiedUserKind = "jwt:"
)

// user returns the id of the request's user and its kind; the id is empty for an anonymous caller.
// The user is ambiguous if servers would read the request differently. Users whom Envoy
// has verified and users whom the client claims have different buckets. So a claim can't
// spend the tokens of a verified user.
func (i identifier) user(r envoy.Request) (kind, id string, from UserSource) {
	for _, source := range i.users {
		var named, sure bool
		kind = claimedUserKind
		switch source {
		case UserJWT:
			id, named, sure = claimedUser(r.Claim(i.jwtPayload, i.userClaim))
			kind = verifiedUserKind
		case UserHeader:
			id, named, sure = headerUser(r)
		case UserQuery:
			id, named, sure = queryUser(r)
		}
		switch {
		case !named:
			continue
		case !sure:
			return "", "", UserAmbiguous
		case id == "":
			return "", "", UserNone
		}
		return kind, id, source
	}
	return "", "", UserNone
}

// verified returns the id of the user of a token that Envoy has verified; empty if there
// is none.
func (i identifier) verified(r envoy.Request) string {
	if !slices.Contains(i.users, UserJWT) {
		return ""
	}
	id, named, sure := claimedUser(r.Claim(i.jwtPayload, i.userClaim))
	if !named || !sure {
		return ""
	}
	return id
}

// appendUserSubject appends the subject of a user. The id is hashed, so that text of the
// client's neither forms a key nor is stored.
func appendUserSubject(b []byte, kind, id string) []byte {
	return appendHash(append(b, kind...), id)
}

// appendHash appends 22 characters: the first half of a SHA-256, in base64url.
func appendHash(b []byte, text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.AppendEncode(b, sum[:16])
}

// claimedUser reads the claim of a verified token. A JSON number is exact below 2^53.
func claimedUser(claim any) (id string, named, sure bool) {
	switch v := claim.(type) {
	case nil:
		return "", false, true
	case string:
		return v, true, v != "" && IsUserID(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true, v == math.Trunc(v) && math.Abs(v) < 1<<53
	default:
		return "", true, false
	}
}

// headerUser reads X-User-ID or, if that is absent, X-UserID.
func headerUser(r envoy.Request) (id string, named, sure bool) {
	for _, name := range []string{"x-user-id", "x-userid"} {
		if value, lines := r.Header(name); lines > 1 || value != "" {
			return value, true, lines == 1 && !strings.Contains(value, ",") && IsUserID(value)
		}
	}
	return "", false, true
}

// queryUser reads the query parameter user_id. A query that is too long to be read to
// its end is ambiguous: the rest may name another user.
func queryUser(r envoy.Request) (id string, named, sure bool) {
	_, query, _ := strings.Cut(r.Path, "?")
	query, _, _ = strings.Cut(query, "#")
	if len(query) > policy.MaxPath {
		return "", true, false
	}
	times := 0
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if unescape(name) == "user_id" {
			times++
			id = unescape(value)
		}
	}
	return id, times > 0, times <= 1 && IsUserID(id)
}

// IsUserID says whether a gate takes text for the id of a user: at most 256 bytes of UTF-8,
// without control characters. Who names another one is anonymous.
func IsUserID(id string) bool {
	return len(id) <= maxUserID && utf8.ValidString(id) && strings.IndexFunc(id, unicode.IsControl) < 0
}

// unescape decodes a part of a query, in which plus is a space.
func unescape(s string) string { return policy.Unescape(strings.ReplaceAll(s, "+", " ")) }
