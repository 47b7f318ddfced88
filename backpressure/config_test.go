package backpressure

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func validConfig() Config {
	return Config{
		SampleInterval: time.Second, StaleAfter: 5 * time.Second, AdmissionWindow: 500 * time.Millisecond,
		RetryDelay: 30 * time.Second, RetryMax: 10 * time.Minute, PollInterval: 5 * time.Second,
	}
}

// validLimits are those of a gate without a policy file.
func validLimits() Limits { return Limits{MaxPending: 40, MaxAge: 10 * time.Minute} }

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(*Config)
		want   []string // the variables complained about, in order
	}{
		"defaults":                 {func(*Config) {}, nil},
		"no interval":              {func(c *Config) { c.SampleInterval = 0 }, []string{"QUEUE_SAMPLE_INTERVAL"}},
		"no stale":                 {func(c *Config) { c.StaleAfter = 0 }, []string{"QUEUE_STALE_AFTER", "QUEUE_STALE_AFTER"}},
		"stale at once":            {func(c *Config) { c.StaleAfter = time.Second }, []string{"QUEUE_STALE_AFTER"}},
		"no window":                {func(c *Config) { c.AdmissionWindow = 0 }, []string{"QUEUE_ADMISSION_WINDOW"}},
		"window below Redis's ms":  {func(c *Config) { c.AdmissionWindow = time.Microsecond }, []string{"QUEUE_ADMISSION_WINDOW"}},
		"no retry delay":           {func(c *Config) { c.RetryDelay = 0 }, []string{"QUEUE_RETRY_DELAY"}},
		"retry max below delay":    {func(c *Config) { c.RetryMax = time.Second }, []string{"QUEUE_RETRY_MAX"}},
		"no poll interval":         {func(c *Config) { c.PollInterval = 0 }, []string{"PROMETHEUS_QUEUE_POLL_INTERVAL"}},
		"every mistake at once":    {func(c *Config) { *c = Config{} }, allVariables(t)},
		"retry max equal to delay": {func(c *Config) { c.RetryMax = c.RetryDelay }, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := validConfig()
			tc.change(&cfg)
			var got []string
			for _, err := range cfg.Validate() {
				variable, text, found := strings.Cut(err.Error(), ": ")
				if !found || text == "" {
					t.Errorf("error %q doesn't read VARIABLE: text", err)
				}
				got = append(got, variable)
			}
			if name == "every mistake at once" {
				got = compact(got)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("complaints about %q, want %q", got, tc.want)
			}
		})
	}
}

// allVariables is the env tag of each field, in order.
func allVariables(t *testing.T) []string {
	t.Helper()
	var names []string
	for field := range reflect.TypeFor[Config]().Fields() {
		name := field.Tag.Get("env")
		if name == "" || field.Tag.Get("envDefault") == "" {
			t.Errorf("field %s lacks a variable or a default", field.Name)
		}
		names = append(names, name)
	}
	return names
}

func compact(names []string) []string {
	var out []string
	for _, n := range names {
		if len(out) == 0 || out[len(out)-1] != n {
			out = append(out, n)
		}
	}
	return out
}
