// Command policyschema writes policy/schema.json, the JSON schema of policy files, from the
// types of package policy. Run it in test/.
package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

const root = "../"

func main() {
	content, err := generate(root)
	if err == nil {
		err = os.WriteFile(root+"policy/schema.json", content, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// generate returns the schema. root is the folder of the gate's module.
func generate(root string) ([]byte, error) {
	comments := &jsonschema.Reflector{}
	if err := comments.AddGoComments("github.com/refrakt-hub/refrakt-gate", root+"policy", jsonschema.WithFullComment()); err != nil {
		return nil, err
	}
	g := generator{comments: map[string]string{}}
	for name, text := range comments.CommentMap {
		// The names begin with the folder as it was given; those of types, with the import path.
		g.comments["github.com/refrakt-hub/refrakt-gate/"+path.Base(name)] = describe(text)
	}
	s := g.reflect(reflect.TypeFor[policy.File]())
	s.Version = jsonschema.Version
	s.ID = "https://github.com/refrakt-hub/refrakt-gate/policy/schema.json"
	s.Title = "Policy file of refrakt-gate"
	s.Description = "What is guarded, and how much of it each caller may use."
	content, err := json.MarshalIndent(s, "", "  ")
	return append(content, '\n'), err
}

type generator struct{ comments map[string]string }

func (g generator) reflect(t reflect.Type) *jsonschema.Schema {
	r := &jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, RequiredFromJSONSchemaTags: true,
		CommentMap: g.comments, KeyNamer: key, Mapper: g.special,
	}
	s := r.ReflectFromType(t)
	s.Version = ""
	return s
}

const name = `^[a-z][a-z0-9_-]{0,62}$`

// special returns the schemas of types whose form in a file is not that of the type.
func (g generator) special(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[[]policy.Tier]():
		factor, _ := g.reflect(reflect.TypeFor[policy.Tier]()).Properties.Get("factor")
		return byName(factor, name, 50, policy.Plain)
	case reflect.TypeFor[[]policy.Queue]():
		queues := byName(g.reflect(reflect.TypeFor[policy.Queue]()), `^[^\s]+$`, 100)
		queues.PropertyNames.MaxLength = new(uint64(256))
		return queues
	case reflect.TypeFor[[]policy.Policy]():
		s := g.reflect(reflect.TypeFor[policy.Policy]())
		match, _ := s.Properties.Get("match")
		match.Items.Pattern = `^([A-Z-]+ )?/([^/?#;\s]+(/[^/?#;\s]+)*/?)?$`
		s.AnyOf = []*jsonschema.Schema{{Required: []string{"buckets"}}, {Required: []string{"queue"}}}
		policies := byName(s, name, 1000, "none", "unknown", "probe")
		policies.MinProperties = new(uint64(1))
		return policies
	case reflect.TypeFor[[]policy.Caller]():
		s := g.reflect(reflect.TypeFor[policy.Caller]())
		s.OneOf = []*jsonschema.Schema{{Required: []string{"ip"}}, {Required: []string{"user"}}}
		return &jsonschema.Schema{Type: "array", Items: s}
	case reflect.TypeFor[[]string]():
		return &jsonschema.Schema{Type: "array", Items: &jsonschema.Schema{Type: "string", MinLength: new(uint64(1))}}
	case reflect.TypeFor[policy.Per]():
		return &jsonschema.Schema{Type: "string", Enum: []any{policy.PerIP, policy.PerUser, policy.PerAll}}
	case reflect.TypeFor[policy.Rate]():
		return &jsonschema.Schema{Type: "string", Pattern: `^0*[1-9][0-9]{0,9}/[smhd]$`, Examples: []any{"6/m", "200/d"}}
	case reflect.TypeFor[policy.Shadow]():
		return &jsonschema.Schema{Enum: []any{false, true, "limits", "queue"}}
	case reflect.TypeFor[policy.Treatment]():
		tier := jsonschema.NewProperties()
		tier.Set("tier", &jsonschema.Schema{Type: "string"})
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Enum: []any{"exempt", "deny"}},
			{Type: "object", Properties: tier, Required: []string{"tier"}, AdditionalProperties: jsonschema.FalseSchema},
		}}
	case reflect.TypeFor[netip.Prefix]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`, Examples: []any{"192.0.2.0/24", "2001:db8::/32"}}
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "string", Pattern: `^\+?([0-9]+\.?[0-9]*(ns|us|µs|ms|s|m|h))+$`, Examples: []any{"90s", "10m", "2h"}},
			{Const: 0},
		}}
	}
	return nil
}

// byName is a mapping from names to values, without the reserved ones.
func byName(value *jsonschema.Schema, pattern string, most uint64, reserved ...any) *jsonschema.Schema {
	names := &jsonschema.Schema{Pattern: pattern}
	if len(reserved) > 0 {
		names.Not = &jsonschema.Schema{Enum: reserved}
	}
	return &jsonschema.Schema{Type: "object", PropertyNames: names, AdditionalProperties: value, MaxProperties: &most}
}

var capital = regexp.MustCompile(`[a-z][A-Z]`)

// key is the key of a field: max_pending of MaxPending.
func key(field string) string {
	if field == "IP" {
		return "ip"
	}
	return strings.ToLower(capital.ReplaceAllStringFunc(field, func(s string) string { return s[:1] + "_" + s[1:] }))
}

var (
	fields = regexp.MustCompile(`\b(MaxPending|MaxAge|FairShare|BecomesJob|Match|Queue|Buckets|Shadow|Per|Name|Burst|Rate|Tiered|Tiers|Share|IP|User|Then|Factor|Reserve|Policies|Queues|Callers)( (?:is|are|has|have|keeps|bounds|says|tells|multiplies)\b)`)
	links  = regexp.MustCompile(`\[([\w./]+)\]`)
	space  = regexp.MustCompile(`\s+`)
)

// describe is a doc comment as the description of a key: with the keys of the file.
func describe(comment string) string {
	comment = fields.ReplaceAllStringFunc(comment, func(s string) string {
		field, verb, _ := strings.Cut(s, " ")
		return key(field) + " " + verb
	})
	comment = links.ReplaceAllString(comment, "$1")
	return strings.TrimSpace(space.ReplaceAllString(comment, " "))
}
