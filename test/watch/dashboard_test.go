package watch

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// dashboardJSON is of the dashboard what the tests ask about.
type dashboardJSON struct {
	Panels []struct {
		Title       string `json:"title"`
		Type        string `json:"type"`
		Description string `json:"description"`
		Source      source `json:"datasource"`
		Field       struct {
			Defaults struct {
				Unit       string `json:"unit"`
				Thresholds *struct {
					Steps []any `json:"steps"`
				} `json:"thresholds"`
			} `json:"defaults"`
		} `json:"fieldConfig"`
		Options struct {
			YAxis struct {
				Unit string `json:"unit"`
			} `json:"yAxis"`
		} `json:"options"`
		Targets []struct {
			Source  source `json:"datasource"`
			Expr    string `json:"expr"`
			Instant bool   `json:"instant"`
		} `json:"targets"`
	} `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Query      any    `json:"query"`
			Definition string `json:"definition"`
			Multi      bool   `json:"multi"`
			IncludeAll bool   `json:"includeAll"`
			AllValue   string `json:"allValue"`
		} `json:"list"`
	} `json:"templating"`
}

type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

func dashboardText(t *testing.T) string {
	t.Helper()
	return read(t, filepath.Join(e2e.Root(), "deploy/grafana/refrakt-gate.json"))
}

func loadDashboard(t *testing.T) dashboardJSON {
	t.Helper()
	var d dashboardJSON
	if err := json.Unmarshal([]byte(dashboardText(t)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardSchema reads the dashboard by Grafana's own schema, which knows every field of every panel.
func TestDashboardSchema(t *testing.T) {
	t.Parallel()
	plugins.RegisterDefaultPlugins()
	var d dashboard.Dashboard //nolint:staticcheck // the classic model, which every Grafana imports; v2 is for Grafana 12's API
	// It returns a list of errors, which is not nil when it is empty.
	if err := d.UnmarshalJSONStrict([]byte(dashboardText(t))); err != nil && err.Error() != "" {
		t.Errorf("not by the schema:\n%v", err)
	}
	if err := d.Validate(); err != nil {
		t.Errorf("not valid:\n%v", err)
	}
	if got, want := d.SchemaVersion, dashboard.NewDashboard().SchemaVersion; got != want {
		t.Errorf("schemaVersion: got %d, the schema's is %d", got, want)
	}
}

func TestDashboardComplete(t *testing.T) {
	t.Parallel()
	d := loadDashboard(t)
	builtin := map[string]bool{"row": true, "timeseries": true, "stat": true, "gauge": true, "heatmap": true, "state-timeline": true}
	for _, p := range d.Panels {
		if !builtin[p.Type] {
			t.Errorf("%s: %s is none of the panels that are used here and come with Grafana", p.Title, p.Type)
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("%s: want a description and a query", p.Title)
		}
		if p.Type == "heatmap" && p.Options.YAxis.Unit == "" ||
			p.Type != "heatmap" && p.Field.Defaults.Thresholds == nil ||
			p.Type != "heatmap" && p.Type != "state-timeline" && p.Field.Defaults.Unit == "" {
			t.Errorf("%s: want a unit and thresholds", p.Title)
		}
		want := source{Type: "prometheus", UID: "${datasource}"}
		if p.Source != want {
			t.Errorf("%s: data source %v, want %v", p.Title, p.Source, want)
		}
		for _, q := range p.Targets {
			if q.Source != want {
				t.Errorf("%s: data source of a query %v, want %v", p.Title, q.Source, want)
			}
			checkQueue(t, p.Title, q.Expr)
		}
	}
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type
	}
	for name, want := range map[string]string{"datasource": "datasource", "queue": "query", "instance": "query"} {
		if got := variables[name]; got != want {
			t.Errorf("variable %s: type %q, want %q", name, got, want)
		}
	}
}

// checkQueue wants each selector of a query to be for the chosen queue, unless the query shows all queues. With a policy
// file, only the series of a queue and of its jobs have the label.
func checkQueue(t *testing.T, title, expr string) {
	t.Helper()
	if strings.Contains(expr, "by (queue)") {
		return
	}
	for _, s := range selector.FindAllString(expr, -1) {
		want := `queue=~"$queue|"`
		if ofQueue.MatchString(s) {
			want = `queue="$queue"`
		}
		if !strings.Contains(s, want) {
			t.Errorf("%s: not for the chosen queue: %s, want %s", title, s, want)
		}
	}
}

var ofQueue = regexp.MustCompile(`^refrakt_(gate_)?(queue|job)_`)
