package page

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// metrics are the families of one look at the registry, by name.
type metrics map[string]*dto.MetricFamily

func newMetrics(families []*dto.MetricFamily) metrics {
	m := make(metrics, len(families))
	for _, f := range families {
		m[f.GetName()] = f
	}
	return m
}

// labels are those of a series.
type labels map[string]string

// Number is a value of the metrics, and how the page shows it.
type Number struct {
	Series string // as in the text form, with the labels sorted: name{a="b"}
	Value  float64
	Text   string
}

// Raw is the value as JavaScript and Go read it: "NaN" if it is not known.
func (n *Number) Raw() string { return strconv.FormatFloat(n.Value, 'g', -1, 64) }

// Known says whether there is a value.
func (n *Number) Known() bool { return n != nil && !math.IsNaN(n.Value) }

// value returns the value of a number, NaN if there is none.
func (n *Number) value() float64 {
	if n == nil {
		return math.NaN()
	}
	return n.Value
}

// is says that there is such a number, and what it is.
func (n *Number) is(value float64) bool { return n != nil && n.Value == value }

// get returns the number of a series, in the form of text; nil if there is no such series.
func (m metrics) get(name string, of labels, text func(float64) string) *Number {
	for _, series := range m[name].GetMetric() {
		if have := labelsOf(series); maps.Equal(have, of) {
			return number(name, have, series, text)
		}
	}
	return nil
}

// all calls each with every series of a family.
func (m metrics) all(name string, each func(labels, *Number)) {
	for _, series := range m[name].GetMetric() {
		have := labelsOf(series)
		each(have, number(name, have, series, count))
	}
}

// decisions calls each with every counter of decisions.
func (m metrics) decisions(each func(policy, verdict, reason string, n float64)) {
	m.all("refrakt_gate_decisions_total", func(of labels, n *Number) {
		each(of["policy"], of["verdict"], of["reason"], n.Value)
	})
}

func labelsOf(series *dto.Metric) labels {
	of := make(labels, len(series.GetLabel()))
	for _, pair := range series.GetLabel() {
		of[pair.GetName()] = pair.GetValue()
	}
	return of
}

func number(name string, of labels, series *dto.Metric, text func(float64) string) *Number {
	value := series.GetGauge().GetValue() // 0 of another kind
	if series.GetCounter() != nil {
		value = series.GetCounter().GetValue()
	}
	n := &Number{Series: name, Value: value, Text: unknown}
	if len(of) > 0 {
		pairs := make([]string, 0, len(of))
		for _, label := range slices.Sorted(maps.Keys(of)) {
			pairs = append(pairs, fmt.Sprintf("%s=%q", label, of[label]))
		}
		n.Series += "{" + strings.Join(pairs, ",") + "}"
	}
	if n.Known() {
		n.Text = text(value)
	}
	return n
}
