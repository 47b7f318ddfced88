package policy

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

// The schema's bounds of how many there may be are those of Parse.
func TestCountsAreThoseOfTheSchema(t *testing.T) {
	t.Parallel()
	var root struct {
		Properties map[string]struct {
			MaxProperties        int
			AdditionalProperties struct {
				Properties map[string]struct{ MaxItems int }
			}
		}
	}
	if err := json.Unmarshal(Schema, &root); err != nil {
		t.Fatal(err)
	}
	policy := root.Properties["policies"].AdditionalProperties.Properties
	for name, tt := range map[string]struct{ got, want int }{
		"tiers":    {root.Properties["tiers"].MaxProperties, maxTiers},
		"queues":   {root.Properties["queues"].MaxProperties, maxQueues},
		"policies": {root.Properties["policies"].MaxProperties, maxPolicies},
		"match":    {policy["match"].MaxItems, maxMatch},
		"buckets":  {policy["buckets"].MaxItems, maxBuckets},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: the schema has at most %d, Parse takes %d", name, tt.got, tt.want)
		}
	}
}

// Parse reads nodes by hand: its keys are those of the schema, which are those of the types.
func TestKeysAreThoseOfTheSchema(t *testing.T) {
	t.Parallel()
	type schema struct {
		Properties           map[string]*schema
		AdditionalProperties any
		Items                *schema
		AnyOf                []*schema
	}
	var root schema
	if err := json.Unmarshal(Schema, &root); err != nil {
		t.Fatal(err)
	}
	// byName is the schema of the values of a mapping with free names.
	byName := func(section string) *schema {
		var s schema
		raw, err := json.Marshal(root.Properties[section].AdditionalProperties)
		if err == nil {
			err = json.Unmarshal(raw, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return &s
	}
	queue, policy, caller := byName("queues"), byName("policies"), root.Properties["callers"].Items
	for name, tt := range map[string]struct {
		keys   []string
		schema *schema
	}{
		"file":      {fileKeys, &root},
		"queue":     {queueKeys, queue},
		"reserve":   {reserveKeys, queue.Properties["reserve"]},
		"policy":    {policyKeys, policy},
		"bucket":    {bucketKeys, policy.Properties["buckets"].Items},
		"caller":    {callerKeys, caller},
		"treatment": {treatmentKeys, caller.Properties["then"].AnyOf[1]},
	} {
		keys, want := slices.Sorted(slices.Values(tt.keys)), slices.Sorted(maps.Keys(tt.schema.Properties))
		if !slices.Equal(keys, want) {
			t.Errorf("%s: Parse knows %q, the schema %q", name, keys, want)
		}
	}
}
