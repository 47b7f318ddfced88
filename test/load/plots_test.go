package load

import (
	"math"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// TestLegendIsApart: neither title nor legend nor a phase's name lies over a line that shows values, and each curve is
// named.
func TestLegendIsApart(t *testing.T) {
	t.Parallel()
	r := goodRun()
	for at := r.Start; at.Before(r.End); at = at.Add(Step) {
		r.Depth = append(r.Depth, Point{at, maxPending}) // along the limit, as in a full queue
	}
	for name, tt := range map[string]struct {
		make   func() (*chart, error)
		labels []string
	}{
		"answers": {func() (*chart, error) { return answersPlot(r) }, []string{"answers per second", "200, 202", "429", "503", Burst}},
		"depth": {func() (*chart, error) { return pointsPlot(r, "jobs waiting", r.Depth, maxPending, "QUEUE_MAX_PENDING") }, []string{
			"jobs waiting", "QUEUE_MAX_PENDING", "seen", Burst,
		}},
	} {
		c, err := tt.make()
		if err != nil {
			t.Fatal(err)
		}
		var canvas recorder.Canvas
		c.draw(draw.NewCanvas(&canvas, width, height))
		highest := vg.Length(0)
		lowest, right := map[string]vg.Length{}, vg.Length(0)
		for _, action := range canvas.Actions {
			switch a := action.(type) {
			case *recorder.Stroke:
				if len(a.Path) <= 2 && math.Abs(float64(a.Path[0].Pos.X-a.Path[len(a.Path)-1].Pos.X)) < 100 {
					continue // an axis, a tick, a phase's mark, or a sample in the legend
				}
				for _, p := range a.Path {
					highest = max(highest, p.Pos.Y)
				}
			case *recorder.FillString:
				lowest[a.String] = a.Point.Y
				right = max(right, a.Point.X+text.Style{Font: a.Font, Handler: plot.DefaultTextHandler}.Width(a.String))
			}
		}
		for _, label := range tt.labels {
			if y, ok := lowest[label]; !ok || y <= highest {
				t.Errorf("%s: %q is there: %v, at %v, and curves reach up to %v", name, label, ok, y, highest)
			}
		}
		if right > width {
			t.Errorf("%s: text ends at %v of %v", name, right, width)
		}
	}
}
