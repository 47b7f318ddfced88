package load

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colours of the answers, and of what is drawn behind them.
var (
	blue  = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
	amber = color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}
	red   = color.RGBA{R: 0xc4, G: 0x33, B: 0x2e, A: 0xff}
	grey  = color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff}
)

// The size of a plot is the width of a README, in which 4 pixels are 3 points; so text is as large as the README's.
const (
	width  = vg.Length(622.5)
	height = vg.Length(225)

	textSize  = 11
	smallSize = 10
)

// writePlots draws answers.svg, depth.svg and age.svg.
func writePlots(dir string, r *Run) error {
	for file, draw := range map[string]func(*Run) (*chart, error){
		"answers.svg": answersPlot,
		"depth.svg": func(r *Run) (*chart, error) {
			return pointsPlot(r, "jobs waiting", r.Depth, maxPending, "QUEUE_MAX_PENDING")
		},
		"age.svg": func(r *Run) (*chart, error) {
			return pointsPlot(r, "age of the oldest waiting job, seconds", r.Age, maxAge.Seconds(), "QUEUE_MAX_AGE_SECONDS")
		},
	} {
		c, err := draw(r)
		if err != nil {
			return fmt.Errorf("draw %s: %w", file, err)
		}
		if err := c.save(filepath.Join(dir, file)); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return nil
}

// chart is a plot with its title and its legend in a line above it, where no line of its own can be.
type chart struct {
	*plot.Plot

	title  string
	legend []entry
}

type entry struct {
	name string
	line *plotter.Line
}

func newChart(r *Run, title string) *chart {
	p := plot.New()
	p.X.Label.Text = "minutes"
	p.X.Min, p.X.Max = 0, r.End.Sub(r.Start).Minutes()
	p.Y.Min = 0
	p.Y.Tick.Marker = plot.TickerFunc(roundTicks)
	for _, style := range []*text.Style{&p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font = sans(smallSize)
	}
	return &chart{Plot: p, title: title}
}

// roundTicks are the usual ticks without "25.00".
func roundTicks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = strconv.FormatFloat(ticks[i].Value, 'g', 6, 64)
		}
	}
	return ticks
}

func sans(size float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: font.Points(size)}
}

// save writes the chart as SVG.
func (c *chart) save(file string) error {
	svg := vgsvg.New(width, height)
	c.draw(draw.New(svg))
	var buf bytes.Buffer
	if _, err := svg.WriteTo(&buf); err != nil {
		return err
	}
	return os.WriteFile(file, buf.Bytes(), 0o600)
}

func (c *chart) draw(canvas draw.Canvas) {
	const margin = vg.Length(6)
	canvas = draw.Crop(canvas, 0, -margin, 0, 0) // the last tick's label is wider than the axis
	style := text.Style{Color: color.Black, Font: sans(textSize), Handler: plot.DefaultTextHandler}
	header := 2 * style.FontExtents().Height
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Path())
	c.Draw(draw.Crop(canvas, 0, 0, 0, -header))

	base := canvas.Max.Y - style.FontExtents().Ascent - margin/2
	canvas.FillText(style, vg.Point{X: canvas.Min.X, Y: base}, c.title)
	const sample, gap = vg.Length(18), vg.Length(5)
	x := canvas.Max.X
	for _, e := range slices.Backward(c.legend) {
		x -= style.Width(e.name)
		canvas.FillText(style, vg.Point{X: x, Y: base}, e.name)
		x -= sample + gap
		y := base + style.FontExtents().Ascent/3
		canvas.StrokeLine2(e.line.LineStyle, x, y, x+sample, y)
		x -= 3 * gap
	}
}

// answersPlot has the answers a second, by what they were.
func answersPlot(r *Run) (*chart, error) {
	c := newChart(r, "answers per second")
	steps := int(r.End.Sub(r.Start)/Step) + 1
	top := 0.0
	for _, kind := range []struct {
		name  string
		is    func(Answer) bool
		color color.Color
	}{
		{"200, 202", Answer.admitted, blue},
		{"429", func(a Answer) bool { return a.Code == 429 }, amber},
		{"503", func(a Answer) bool { return a.Code == 503 }, red},
	} {
		xys := make(plotter.XYs, steps)
		for i := range xys {
			xys[i].X = (time.Duration(i) * Step).Minutes()
		}
		for _, phase := range r.Phases {
			for _, a := range phase.Answers {
				if i := int(a.Done.Sub(r.Start) / Step); kind.is(a) && i >= 0 && i < steps {
					xys[i].Y += 1 / Step.Seconds()
					top = max(top, xys[i].Y)
				}
			}
		}
		if err := c.line(kind.name, xys, draw.LineStyle{Color: kind.color, Width: vg.Points(1.5)}); err != nil {
			return nil, err
		}
	}
	return c, c.phases(r, top)
}

// pointsPlot has one series of Prometheus's and, behind it, the limit that is set for it.
func pointsPlot(r *Run, title string, points []Point, limit float64, setting string) (*chart, error) {
	c := newChart(r, title)
	end := r.End.Sub(r.Start).Minutes()
	dashed := draw.LineStyle{Color: red, Width: vg.Points(1.5), Dashes: []vg.Length{vg.Points(6), vg.Points(3)}}
	if err := c.line(setting, plotter.XYs{{X: 0, Y: limit}, {X: end, Y: limit}}, dashed); err != nil {
		return nil, err
	}
	var xys plotter.XYs
	top := limit
	for _, q := range points {
		if !math.IsNaN(q.Value) {
			xys = append(xys, plotter.XY{X: q.At.Sub(r.Start).Minutes(), Y: q.Value})
			top = max(top, q.Value)
		}
	}
	if err := c.line("seen", xys, draw.LineStyle{Color: blue, Width: vg.Points(1.5)}); err != nil {
		return nil, err
	}
	return c, c.phases(r, top)
}

func (c *chart) line(name string, xys plotter.XYs, style draw.LineStyle) error {
	if len(xys) == 0 {
		return nil
	}
	l, err := plotter.NewLine(xys)
	if err != nil {
		return err
	}
	l.LineStyle = style
	c.Add(l)
	c.legend = append(c.legend, entry{name, l})
	return nil
}

// phases marks where each phase begins, with its name above everything up to top.
func (c *chart) phases(r *Run, top float64) error {
	c.Y.Max = top * 1.2
	names := plotter.XYLabels{}
	for _, phase := range r.Phases {
		x := phase.Start.Sub(r.Start).Minutes()
		l, err := plotter.NewLine(plotter.XYs{{X: x, Y: 0}, {X: x, Y: c.Y.Max}})
		if err != nil {
			return err
		}
		l.Color, l.Dashes = grey, []vg.Length{vg.Points(3), vg.Points(3)}
		c.Add(l)
		names.XYs = append(names.XYs, plotter.XY{X: x, Y: top * 1.07})
		names.Labels = append(names.Labels, phase.Name)
	}
	labels, err := plotter.NewLabels(names)
	if err != nil {
		return err
	}
	labels.Offset.X = vg.Points(3)
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font = sans(smallSize)
	}
	c.Add(labels)
	return nil
}
