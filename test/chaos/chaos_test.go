package chaos

import (
	"context"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	os.Exit(e2e.Main(m))
}

// quiet keeps the test's own clients from telling that Redis is away: it is meant to be.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// TestFaults plays every fault briefly. What depends on the machine's speed is for `make chaos`.
func TestFaults(t *testing.T) {
	for _, scene := range Scenes() {
		t.Run(scene.Name, func(t *testing.T) {
			t.Parallel()
			// A machine that stalls is no outage.
			const patience = 500 * time.Millisecond
			setup := scene.Setup
			setup.Settings = map[string]string{"REDIS_TIMEOUT": patience.String()}
			maps.Copy(setup.Settings, scene.Setup.Settings)
			w := NewWorld(t, e2e.PatientConfig(t), setup)
			// Not tests of their own: what a fault replaces lives on in the next.
			for _, f := range scene.Faults {
				figures := w.Play(t, f, Counted(100))
				for _, wrong := range figures.wrong(patience) {
					t.Errorf("%s: %s", f.Name, wrong)
				}
				t.Logf("%s: %s; at most %d jobs waited; recovered after %v; %d decided without Redis though it was not hurt; the machine stalled for %v",
					f.Name, figures.answersText(), figures.Deepest, figures.Recovered, figures.Missed, figures.Stall)
			}
		})
	}
}
