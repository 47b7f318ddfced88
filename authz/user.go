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
)

// UserSource is where a request may name its user.
type UserSource string

// The sources. A token has been verified by Envoy; header and query are the
// client's own claim. The last two say of a caller that no user counts, because
// none was named, or not for sure.
const (
	UserJWT       UserSource = "jwt"
	UserHeader    UserSource = "header"
	UserQuery     UserSource = "query"
	UserNone      UserSource = "none"
	UserAmbiguous UserSource = "ambiguous"
)

// UserSources are asked in their order; the first that names a user decides. The
// zero value is none: callers are known by their address alone.
type UserSources []UserSource

// UnmarshalText reads a comma-separated list, or the word none alone.
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

// String is the list as it may stand in the environment.
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

// user returns the bucket subject of the request's user, empty for an anonymous
// one. It is ambiguous, and then nobody's, where servers would read it
// differently. Users whom Envoy has verified and those who only say who they are
// have different buckets, so that the ones can't spend the others' tokens.
func (i identifier) user(r envoy.Request) (subject string, from UserSource) {
	for _, source := range i.users {
		var id string
		var named, sure bool
		kind := "user:"
		switch source {
		case UserJWT:
			id, named, sure = claimedUser(r.Claim(i.jwtPayload, i.userClaim))
			kind = "jwt:"
		case UserHeader:
			id, named, sure = headerUser(r)
		case UserQuery:
			id, named, sure = queryUser(r)
		}
		switch {
		case !named:
			continue
		case !sure:
			return "", UserAmbiguous
		case id == "":
			return "", UserNone
		}
		// Hashed, so that what a client sends neither shapes a key nor stands in the store.
		sum := sha256.Sum256([]byte(id))
		return kind + base64.RawURLEncoding.EncodeToString(sum[:16]), source
	}
	return "", UserNone
}

// claimedUser reads the claim of a verified token. JSON numbers are exact up to
// 2^53 only.
func claimedUser(claim any) (id string, named, sure bool) {
	switch v := claim.(type) {
	case nil:
		return "", false, true
	case string:
		return v, true, v != "" && isPlain(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true, v == math.Trunc(v) && math.Abs(v) < 1<<53
	default:
		return "", true, false
	}
}

// headerUser reads X-User-ID or, where that is absent, X-UserID.
func headerUser(r envoy.Request) (id string, named, sure bool) {
	for _, name := range []string{"x-user-id", "x-userid"} {
		if value, lines := r.Header(name); lines > 1 || value != "" {
			return value, true, lines == 1 && !strings.Contains(value, ",") && isPlain(value)
		}
	}
	return "", false, true
}

// queryUser reads the query parameter user_id. A query that is too long to be read
// to its end may name a user, and another one further on.
func queryUser(r envoy.Request) (id string, named, sure bool) {
	_, query, _ := strings.Cut(r.Path, "?")
	query, _, _ = strings.Cut(query, "#")
	if len(query) > maxPath {
		return "", true, false
	}
	times := 0
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if unescape(name, true) == "user_id" {
			times++
			id = unescape(value, true)
		}
	}
	return id, times > 0, times <= 1 && isPlain(id)
}

func isPlain(id string) bool {
	return len(id) <= maxUserID && utf8.ValidString(id) && strings.IndexFunc(id, unicode.IsControl) < 0
}
