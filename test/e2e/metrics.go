package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics maps `name` or `name{label="value",…}` (labels sorted) to the value; a histogram gives its _count and _sum.
type Metrics map[string]float64

// Metrics scrapes the gate.
func (g *Gate) Metrics(tb testing.TB) Metrics {
	tb.Helper()
	return flatten(g.families(tb))
}

func (g *Gate) families(tb testing.TB) map[string]*dto.MetricFamily {
	tb.Helper()
	r := g.Get(tb, "/metrics")
	if r.Status != http.StatusOK {
		tb.Fatalf("scrape: got %d %s", r.Status, r.Body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(r.Body))
	if err != nil {
		tb.Fatalf("parse metrics: %v", err)
	}
	return families
}

func flatten(families map[string]*dto.MetricFamily) Metrics {
	m := Metrics{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			labels := labelText(metric.GetLabel())
			switch {
			case metric.Histogram != nil:
				m[name+"_count"+labels] = float64(metric.GetHistogram().GetSampleCount())
				m[name+"_sum"+labels] = metric.GetHistogram().GetSampleSum()
			case metric.Summary != nil:
				m[name+"_count"+labels] = float64(metric.GetSummary().GetSampleCount())
				m[name+"_sum"+labels] = metric.GetSummary().GetSampleSum()
			default: // only the one that is set is not 0
				m[name+labels] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetUntyped().GetValue()
			}
		}
	}
	return m
}

func labelText(labels []*dto.LabelPair) string {
	if len(labels) == 0 {
		return ""
	}
	pairs := make([]string, 0, len(labels))
	for _, l := range labels {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}

// Histogram scrapes the gate for this histogram, which has no labels.
func (g *Gate) Histogram(tb testing.TB, name string) *dto.Histogram {
	tb.Helper()
	h := g.families(tb)[name].GetMetric()
	if len(h) != 1 {
		tb.Fatalf("%d series of %s, want one", len(h), name)
	}
	return h[0].GetHistogram()
}
