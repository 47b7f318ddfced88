package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

func TestSchemaIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := generate("../../")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, policy.Schema) {
		t.Error("policy/schema.json is not what the types amount to; run go generate ./policy")
	}
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(policy.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate returns what an editor says about a file.
func validate(s *jsonschema.Schema, content string) error {
	var v any
	if err := yaml.Unmarshal([]byte(content), &v); err != nil {
		return err
	}
	return s.Validate(v)
}

// What the gate takes, the schema takes.
func TestSchemaAccepts(t *testing.T) {
	t.Parallel()
	s := schema(t)
	contents := map[string]string{
		"a policy of a queue":  "queues: {q: {max_pending: 0, max_age: 0}}\npolicies: {a: {queue: q, becomes_job: false, shadow: false}}",
		"durations":            "queues: {a: {max_age: 1h30m}, b: {max_age: 1.5s}, c: {max_age: 500ms}, d: {max_age: 0s}}\npolicies: {a: {queue: a}}",
		"bounds":               "tiers: {x: 1, y: 1000}\nqueues: {q: {max_pending: 1000000000, fair_share: 0.01}, r: {max_pending: 4, fair_share: 100, reserve: {tiers: [x], share: 0.5}}}\npolicies: {a: {buckets: [{per: all, burst: 1000000, rate: 1000000/m, tiered: false}]}}",
		"shadows":              "queues: {q: {shadow: true}}\npolicies: {a: {queue: q, shadow: true}, b: {queue: q, shadow: limits}, c: {queue: q, shadow: queue}}",
		"callers":              "policies: {a: {buckets: [{per: ip, burst: 1, rate: 1/s}]}}\ncallers: [{ip: 192.0.2.1, then: deny}, {ip: \"::/0\", then: {tier: plain}}, {user: ann, then: exempt}]",
		"all units and names":  "policies: {a-b_c9: {buckets: [{per: ip, burst: 1, rate: 1/s, name: a}, {per: ip, burst: 1, rate: 1/h, name: b-_1}, {per: ip, burst: 1, rate: 1/d}]}}",
		"patterns":             "policies: {a: {match: [/, '/x/{y}', 'M-SEARCH /z', '/q/{$}', 'GET /w/{r...}'], buckets: [{per: ip, burst: 1, rate: 1/s}]}}",
		"an empty list":        "policies: {a: {match: [], buckets: [{per: ip, burst: 1, rate: 1/s}]}}\ncallers: []\ntiers: {}\nqueues: {}",
		"a queue of that name": "queues: {\"Queue/1:é\": {}}\npolicies: {a: {queue: \"Queue/1:é\"}}",
	}
	examples, err := filepath.Glob("../../examples/policies/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range examples {
		contents[path] = read(t, path)
	}
	for name, content := range contents {
		if _, mistakes := policy.Parse([]byte(content)); len(mistakes) > 0 {
			t.Errorf("%s: the gate says %v", name, mistakes)
		}
		if err := validate(s, content); err != nil {
			t.Errorf("%s: the schema says %v", name, err)
		}
	}
}

// What the gate refuses, the schema refuses, save what a schema can't say: what refers to
// another part of the file, what is written twice, networks, and what is YAML's.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := schema(t)
	var unseen []string
	for _, c := range strings.Split(read(t, "../../policy/testdata/mistakes.txt"), "\n## ")[1:] {
		name, rest, _ := strings.Cut(c, "\n")
		content, _, _ := strings.Cut(rest, "=>\n")
		if validate(s, content) == nil {
			unseen = append(unseen, name)
		}
	}
	slices.Sort(unseen)
	want := strings.Split(strings.TrimSpace(read(t, "testdata/unseen.txt")), "\n")
	for _, name := range unseen {
		if !slices.Contains(want, name) {
			t.Errorf("%s: the schema does not refuse it", name)
		}
	}
	for _, name := range want {
		if !slices.Contains(unseen, name) {
			t.Errorf("%s: the schema refuses it; take it out of testdata/unseen.txt", name)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
