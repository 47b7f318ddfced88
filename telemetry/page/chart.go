package page

import (
	"fmt"
	"math"
	"strings"
)

// The charts are drawn in these coordinates, and the style sheet stretches them.
const (
	chartWidth  = 240.0
	chartHeight = 48.0
)

// gauge is a value against its threshold.
type gauge struct {
	Width float64 // of 100
	Over  bool    // the threshold is reached
}

// newGauge returns nil if the value is not known or there is no threshold.
func newGauge(value, limit float64) *gauge {
	if math.IsNaN(value) || math.IsNaN(limit) || limit <= 0 {
		return nil
	}
	return &gauge{Width: round(100 * min(1, max(0, value/limit))), Over: value >= limit}
}

// line is a value of the last minutes, with its threshold.
type line struct {
	Path  string  // empty: nothing is known
	Area  string  // the same down to the ground
	Limit float64 // y of the threshold; negative: there is none
	Most  string  // the largest value
}

// newLine draws values, oldest first. NaN is a gap.
func newLine(values []float64, limit float64, text func(float64) string) line {
	most, known := 0.0, false
	for _, v := range values {
		if !math.IsNaN(v) {
			most, known = max(most, v), true
		}
	}
	l := line{Limit: -1}
	if !known {
		return l
	}
	l.Most = text(most)
	top := most
	if limit > 0 {
		top = max(top, limit)
	}
	if top == 0 {
		top = 1
	}
	y := func(v float64) float64 { return round(chartHeight - 1 - (chartHeight-4)*v/top) }
	if limit > 0 {
		l.Limit = y(limit)
	}
	var path, area strings.Builder
	step := chartWidth / float64(len(values)-1)
	for i := 0; i < len(values); i++ {
		if math.IsNaN(values[i]) {
			continue
		}
		begin := i
		x := func(i int) float64 { return round(float64(i) * step) }
		for ; i < len(values) && !math.IsNaN(values[i]); i++ {
			command := "L"
			if i == begin {
				command = "M"
				fmt.Fprintf(&area, "M%g %g", x(i), chartHeight)
			}
			fmt.Fprintf(&path, "%s%g %g", command, x(i), y(values[i]))
			fmt.Fprintf(&area, "L%g %g", x(i), y(values[i]))
		}
		if i-begin == 1 { // a single value is a dot
			fmt.Fprintf(&path, "h1")
		}
		fmt.Fprintf(&area, "L%g %gZ", x(i-1), chartHeight)
	}
	l.Path, l.Area = path.String(), area.String()
	return l
}

// stack is a chart of bars whose parts are kinds of outcomes.
type stack struct {
	Parts []part
	Most  string // requests of the highest bar; empty: there were none
	Words string // what the chart shows
}

// part is a part of a bar.
type part struct {
	Kind                string
	X, Y, Width, Height float64
}

// newStack draws the bars, oldest first.
func newStack(of [bars]counts) stack {
	most := 0.0
	sums := make(map[string]float64)
	for _, bar := range of {
		total := 0.0
		for o, n := range bar {
			total += n
			sums[o.kind()] += n
		}
		most = max(most, total)
	}
	if most == 0 {
		return stack{Words: "no requests"}
	}
	s := stack{Most: count(most)}
	var words []string
	for _, kind := range kinds {
		if sums[kind] > 0 {
			words = append(words, answers[kind]+": "+count(sums[kind]))
		}
	}
	s.Words = strings.Join(words, ", ")
	width := chartWidth / bars
	for i, bar := range of {
		ground := chartHeight
		for _, kind := range kinds {
			n := 0.0
			for o, of := range bar {
				if o.kind() == kind {
					n += of
				}
			}
			if n == 0 {
				continue
			}
			height := max(0.6, (chartHeight-2)*n/most) // few of many are seen too
			ground -= height
			s.Parts = append(s.Parts, part{kind, round(float64(i)*width + 0.5), round(max(0, ground)), width - 1, round(height)})
		}
	}
	return s
}

func round(x float64) float64 { return math.Round(x*100) / 100 }
