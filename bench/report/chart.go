package report

import (
	"bytes"
	"image/color"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Chart is a plot of curves over steps such as 1, 10, 100, which have the same distance from each other.
type Chart struct {
	Title  string
	X      string // what the steps are
	Steps  []string
	Series []Series
}

// Series is a curve. It may have fewer points than the chart has steps.
type Series struct {
	Name   string
	Values []float64
}

// colours are told apart by people who see few of them, too.
var colours = []color.Color{
	color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff},
	color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff},
	color.RGBA{R: 0x2a, G: 0x9d, B: 0x6f, A: 0xff},
	color.RGBA{R: 0xc4, G: 0x33, B: 0x2e, A: 0xff},
	color.RGBA{R: 0x88, G: 0x55, B: 0xaa, A: 0xff},
	color.RGBA{R: 0x66, G: 0x66, B: 0x66, A: 0xff},
}

// The size of a plot is the width of a README, in which 4 pixels are 3 points; so text is as large as the README's.
const (
	width  = vg.Length(622.5)
	height = vg.Length(225)

	textSize  = 11
	smallSize = 10
)

func sans(size float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: font.Points(size)}
}

func (c Chart) svg() ([]byte, error) {
	p, lines, err := c.plot()
	if err != nil {
		return nil, err
	}
	canvas := vgsvg.New(width, height)
	c.draw(draw.New(canvas), p, lines)
	var b bytes.Buffer
	_, err = canvas.WriteTo(&b)
	return b.Bytes(), err
}

func (c Chart) plot() (*plot.Plot, []*plotter.Line, error) {
	p := plot.New()
	p.X.Label.Text = c.X
	p.X.Min, p.X.Max, p.Y.Min = -0.2, float64(len(c.Steps))-0.8, 0
	ticks := make(plot.ConstantTicks, len(c.Steps))
	for i, step := range c.Steps {
		ticks[i] = plot.Tick{Value: float64(i), Label: step}
	}
	p.X.Tick.Marker = ticks
	p.Y.Tick.Marker = plot.TickerFunc(roundTicks)
	for _, style := range []*text.Style{&p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font = sans(smallSize)
	}
	top := 0.0
	var lines []*plotter.Line
	for i, s := range c.Series {
		xys := make(plotter.XYs, len(s.Values))
		for j, v := range s.Values {
			xys[j] = plotter.XY{X: float64(j), Y: v}
			top = max(top, v)
		}
		line, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, nil, err
		}
		line.Color, line.Width = colours[i%len(colours)], vg.Points(1.5)
		dots.Color, dots.Radius, dots.Shape = line.Color, vg.Points(2.5), draw.CircleGlyph{}
		p.Add(line, dots)
		lines = append(lines, line)
	}
	p.Y.Max = top * 1.08
	return p, lines, nil
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

// draw draws the title and the legend in a line above the plot, where no curve can be.
func (c Chart) draw(canvas draw.Canvas, p *plot.Plot, lines []*plotter.Line) {
	const margin = vg.Length(6)
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Path())
	canvas = draw.Crop(canvas, 0, -margin, 0, 0) // the last tick's label is wider than the axis
	style := text.Style{Color: color.Black, Font: sans(textSize), Handler: plot.DefaultTextHandler}
	header := 2 * style.FontExtents().Height
	p.Draw(draw.Crop(canvas, 0, 0, 0, -header))

	base := canvas.Max.Y - style.FontExtents().Ascent - margin/2
	canvas.FillText(style, vg.Point{X: canvas.Min.X, Y: base}, c.Title)
	const sample, gap = vg.Length(18), vg.Length(5)
	x := canvas.Max.X
	for i, s := range slices.Backward(c.Series) {
		x -= style.Width(s.Name)
		canvas.FillText(style, vg.Point{X: x, Y: base}, s.Name)
		x -= sample + gap
		y := base + style.FontExtents().Ascent/3
		canvas.StrokeLine2(lines[i].LineStyle, x, y, x+sample, y)
		x -= 3 * gap
	}
}
