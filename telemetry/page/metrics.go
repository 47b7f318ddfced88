package page

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// metrics are the families of one look at the registry. One goroutine uses them.
type metrics struct {
	families map[string]*dto.MetricFamily // by name
	read     map[string][]series          // those that were asked for, by name
	of       map[string]map[string]series // the same by name and by text
}

func newMetrics(families []*dto.MetricFamily) metrics {
	m := metrics{make(map[string]*dto.MetricFamily, len(families)), make(map[string][]series), make(map[string]map[string]series)}
	for _, f := range families {
		m.families[f.GetName()] = f
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

// series is one series of a family.
type series struct {
	name  string
	of    labels
	value float64
}

// text is the series in the text form, with the labels sorted: name{a="b"}.
func (s series) text() string {
	if len(s.of) == 0 {
		return s.name
	}
	pairs := make([]string, 0, len(s.of))
	for _, label := range slices.Sorted(maps.Keys(s.of)) {
		pairs = append(pairs, label+"="+strconv.Quote(s.of[label]))
	}
	return s.name + "{" + strings.Join(pairs, ",") + "}"
}

// all returns every series of a family. Only those of counters and gauges have a value.
func (m metrics) all(name string) []series {
	if all, read := m.read[name]; read {
		return all
	}
	var all []series
	for _, metric := range m.families[name].GetMetric() {
		of := make(labels, len(metric.GetLabel()))
		for _, pair := range metric.GetLabel() {
			of[pair.GetName()] = pair.GetValue()
		}
		all = append(all, series{name, of, metric.GetGauge().GetValue() + metric.GetCounter().GetValue()}) // one of them is 0
	}
	m.read[name] = all
	return all
}

// get returns the number of a series in the form of text; nil if there is no such series.
func (m metrics) get(name string, of labels, text func(float64) string) *Number {
	if m.of[name] == nil {
		m.of[name] = make(map[string]series)
		for _, s := range m.all(name) {
			m.of[name][s.text()] = s
		}
	}
	s, exists := m.of[name][series{name: name, of: of}.text()]
	if !exists {
		return nil
	}
	return s.number(text)
}

// decisions calls each with every counter of decisions.
func (m metrics) decisions(each func(policy, verdict, reason string, n float64)) {
	for _, s := range m.all("refrakt_gate_decisions_total") {
		each(s.of["policy"], s.of["verdict"], s.of["reason"], s.value)
	}
}

// oldCertificates returns the ports whose certificate has less than a fifth of its life left,
// as the alert GateCertificateNotRenewed counts.
func (m metrics) oldCertificates(now time.Time) (ports []string) {
	for _, end := range m.all("refrakt_gate_certificate_not_after_timestamp_seconds") {
		begin := m.get("refrakt_gate_certificate_not_before_timestamp_seconds", end.of, count)
		if left := end.value - float64(now.Unix()); begin.Known() && left < 0.2*(end.value-begin.Value) {
			ports = append(ports, end.of["port"])
		}
	}
	return ports
}

// number returns the value in the form of text.
func (s series) number(text func(float64) string) *Number {
	n := &Number{Series: s.text(), Value: s.value, Text: unknown}
	if n.Known() {
		n.Text = text(s.value)
	}
	return n
}

// check is a check of a policy: limit or queue.
type check struct{ policy, name string }

// shadows returns 1 for the checks that are in shadow mode, and 0 for the others.
func (m metrics) shadows() map[check]series {
	shadows := make(map[check]series)
	for _, s := range m.all("refrakt_gate_shadow_active") {
		shadows[check{s.of["policy"], s.of["check"]}] = s
	}
	return shadows
}
