package load

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// The colours of the answers, and of what is drawn behind them.
var (
	blue  = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
	amber = color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}
	red   = color.RGBA{R: 0xc4, G: 0x33, B: 0x2e, A: 0xff}
	grey  = color.RGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff}
)

// writePlots draws answers.svg, depth.svg and age.svg.
func writePlots(dir string, r *Run) error {
	for file, draw := range map[string]func(*Run) (*plot.Plot, error){
		"answers.svg": answersPlot,
		"depth.svg": func(r *Run) (*plot.Plot, error) {
			return pointsPlot(r, "jobs waiting", r.Depth, maxPending, "QUEUE_MAX_PENDING")
		},
		"age.svg": func(r *Run) (*plot.Plot, error) {
			return pointsPlot(r, "age of the oldest waiting job, s", r.Age, maxAge.Seconds(), "QUEUE_MAX_AGE_SECONDS")
		},
	} {
		p, err := draw(r)
		if err != nil {
			return fmt.Errorf("draw %s: %w", file, err)
		}
		if err := p.Save(24*vg.Centimeter, 8*vg.Centimeter, filepath.Join(dir, file)); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return nil
}

// answersPlot has the answers a second, by what they were.
func answersPlot(r *Run) (*plot.Plot, error) {
	p := empty(r, "answers per second")
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
		if err := line(p, kind.name, xys, kind.color); err != nil {
			return nil, err
		}
	}
	return p, phases(p, r, top)
}

// pointsPlot has one series of Prometheus's and the limit that is set for it.
func pointsPlot(r *Run, what string, points []Point, limit float64, setting string) (*plot.Plot, error) {
	p := empty(r, what)
	var xys plotter.XYs
	top := limit
	for _, q := range points {
		if !math.IsNaN(q.Value) {
			xys = append(xys, plotter.XY{X: q.At.Sub(r.Start).Minutes(), Y: q.Value})
			top = max(top, q.Value)
		}
	}
	if err := line(p, what, xys, blue); err != nil {
		return nil, err
	}
	end := r.End.Sub(r.Start).Minutes()
	if err := line(p, setting, plotter.XYs{{X: 0, Y: limit}, {X: end, Y: limit}}, red); err != nil {
		return nil, err
	}
	return p, phases(p, r, top)
}

func empty(r *Run, y string) *plot.Plot {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "minutes", y
	p.X.Min, p.X.Max = 0, r.End.Sub(r.Start).Minutes()
	p.Y.Min = 0
	p.Legend.Top = true
	return p
}

func line(p *plot.Plot, name string, xys plotter.XYs, c color.Color) error {
	if len(xys) == 0 {
		return nil
	}
	l, err := plotter.NewLine(xys)
	if err != nil {
		return err
	}
	l.Color, l.Width = c, vg.Points(1.5)
	p.Add(l)
	p.Legend.Add(name, l)
	return nil
}

// phases marks where each phase begins, and leaves room above for its name and, above that, the legend.
func phases(p *plot.Plot, r *Run, top float64) error {
	top *= 1.5
	p.Y.Max = top
	names := plotter.XYLabels{}
	for _, phase := range r.Phases {
		x := phase.Start.Sub(r.Start).Minutes()
		l, err := plotter.NewLine(plotter.XYs{{X: x, Y: 0}, {X: x, Y: top}})
		if err != nil {
			return err
		}
		l.Color, l.Dashes = grey, []vg.Length{vg.Points(3), vg.Points(3)}
		p.Add(l)
		names.XYs = append(names.XYs, plotter.XY{X: x, Y: top * 0.73})
		names.Labels = append(names.Labels, " "+phase.Name)
	}
	labels, err := plotter.NewLabels(names)
	if err != nil {
		return err
	}
	p.Add(labels)
	return nil
}
