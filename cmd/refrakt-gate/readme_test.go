package main

import (
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caarlos0/env/v11"
	dto "github.com/prometheus/client_model/go"

	"github.com/refrakt-hub/refrakt-gate/authz"
	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
)

const (
	readme           = "../../README.md"
	configurationDoc = "../../docs/configuration.md"
	metricsDoc       = "../../docs/metrics.md"
)

// table reads the first two columns of the file's table whose first column is head.
func table(t *testing.T, file, head string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n| "+head+" | ")
	if !found {
		t.Fatalf("%s has no table %q", file, head)
	}
	rest, _, _ = strings.Cut(rest, "\n\n")
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|\\s*`?([^|`]*?)`?\\s*\\| .+ \\|$").FindAllStringSubmatch(rest, -1) {
		rows[m[1]] = m[2]
	}
	return rows
}

// TestSettingsDoc holds the settings table to the code, both ways.
func TestSettingsDoc(t *testing.T) {
	rows := table(t, configurationDoc, "variable")
	params, err := env.GetFieldParams(new(Config))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range params {
		if p.Key == "" {
			continue
		}
		if got, ok := rows[p.Key]; !ok || got != p.DefaultValue {
			t.Errorf("%s: %s says %q (there: %v), the code %q", p.Key, configurationDoc, got, ok, p.DefaultValue)
		}
		delete(rows, p.Key)
	}
	for name := range rows {
		t.Errorf("%s: in %s, but no setting", name, configurationDoc)
	}
}

// TestReadmeSettings holds the README's short table to the whole one.
func TestReadmeSettings(t *testing.T) {
	all, rows := table(t, configurationDoc, "variable"), table(t, readme, "variable")
	if len(rows) == 0 {
		t.Error("no rows")
	}
	for name, got := range rows {
		if want, ok := all[name]; !ok || got != want {
			t.Errorf("%s: the README says %q, %s %q (there: %v)", name, got, configurationDoc, want, ok)
		}
	}
}

// TestRedisParametersDoc holds the table of the URLs' parameters to the code, both ways.
func TestRedisParametersDoc(t *testing.T) {
	text, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, rows, found := strings.Cut(string(text), "\n| parameter | ")
	if !found {
		t.Fatal("no table of parameters")
	}
	rows, _, _ = strings.Cut(rows, "\n\n")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(rows, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			listed = append(listed, strings.Trim(name, "`"))
		}
	}
	known := slices.Concat([]string{"db", "username", "password", "protocol", "master_name", "addr"},
		slices.Collect(maps.Keys(redisPyEquals)), redisPyIgnored, tlsParameters)
	slices.Sort(listed)
	slices.Sort(known)
	if !slices.Equal(listed, known) {
		t.Errorf("listed: %v\nknown:  %v", listed, known)
	}
}

// TestMetricsDoc holds the table of docs/metrics.md to the registry, both ways.
func TestMetricsDoc(t *testing.T) {
	rows := make(map[string]string) // name → type
	labels := make(map[string]string)
	seen := make(map[string]bool)
	for row, kind := range table(t, metricsDoc, "metric") {
		name, l, _ := strings.Cut(strings.TrimSuffix(row, "}"), "{")
		rows[name], labels[name] = kind, l
	}
	dir, ca := t.TempDir(), certtest.NewCA(t)
	certtest.Mount(t, dir, ca.Pair(t, "gate"), ca)
	settings := map[string]string{
		"QUEUE_URL": "redis://127.0.0.1:1", "GRPC_TLS_CERT_FILE": dir + "/tls.crt", "GRPC_TLS_KEY_FILE": dir + "/tls.key",
		"TELEMETRY_TLS_CERT_FILE": dir + "/tls.crt", "TELEMETRY_TLS_KEY_FILE": dir + "/tls.key",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
	}
	without := gathered(t, settings)
	settings["POLICY_FILE"] = policyFile(t, "tiers: {premium: 2}\nqueues: {default: {max_pending: 40, fair_share: 1, reserve: {tiers: [premium], share: 0.2}}}\n"+
		"policies: {run: {match: [/run], queue: default, buckets: [{per: ip, burst: 1, rate: 1/m}]}}\n")
	for queue, families := range map[string][]*dto.MetricFamily{"": without, "queue": gathered(t, settings)} {
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "refrakt_") {
				continue
			}
			kind := strings.ToLower(dto.MetricType_name[int32(f.GetType())])
			if want, ok := rows[f.GetName()]; !ok || want != kind {
				t.Errorf("%s: listed as %q, registered as %q", f.GetName(), want, kind)
			}
			for _, l := range f.GetMetric()[0].GetLabel() {
				if l.GetName() != queue && !strings.Contains(","+labels[f.GetName()]+",", ","+l.GetName()+",") {
					t.Errorf("%s: the label %s is not listed", f.GetName(), l.GetName())
				}
			}
			seen[f.GetName()] = true
		}
	}
	for name := range seen {
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s: listed, but not registered", name)
	}
}

// gathered has the series of a gate with these settings.
func gathered(t *testing.T, settings map[string]string) []*dto.MetricFamily {
	t.Helper()
	cfg, errs := loadConfig(settings)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	reg := newRegistry()
	g, err := newGate(cfg, reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// TestMetricsDocReasons checks that each reason is named.
func TestMetricsDocReasons(t *testing.T) {
	text, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "\nReasons: ")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, r := range []authz.Reason{
		authz.ReasonOK, authz.ReasonNotGuarded, authz.ReasonPreflight, authz.ReasonRateLimited, authz.ReasonQueueFull, authz.ReasonQueueSlow,
		authz.ReasonQueueUnknown, authz.ReasonLimiterUnavailable, authz.ReasonUnknownPolicy, authz.ReasonOverloaded, authz.ReasonInternal,
		authz.ReasonExempt, authz.ReasonForbidden, authz.ReasonQueueShare,
	} {
		if !strings.Contains(list, "`"+string(r)+"`") {
			t.Errorf("reason %s is not listed", r)
		}
	}
}
