package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	for format, want := range map[string][]string{
		logJSON: {`"msg":"waited"`, `"for":"1.5s"`, `"queue":{"age":"2m0s"}`, `"n":3`},
		logText: {"msg=waited", "for=1.5s", "queue.age=2m0s", "n=3"},
	} {
		var out bytes.Buffer
		log := NewLogger(Config{LogFormat: format, LogLevel: slog.LevelInfo}, &out)
		log.Debug("not shown")
		log.Info("waited", "for", 1500*time.Millisecond, slog.Group("queue", "age", 2*time.Minute), "n", 3)
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: no %s in %s", format, w, out.String())
			}
		}
		if strings.Contains(out.String(), "not shown") {
			t.Errorf("%s: LOG_LEVEL does not count: %s", format, out.String())
		}
	}
}
