package settings_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
)

type mode string

func TestChecks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"lowest":         {settings.Within(1, 1, 3), ""},
		"highest":        {settings.Within(3, 1, 3), ""},
		"too low":        {settings.Within(0, 1, 3), "0 is not between 1 and 3"},
		"too high":       {settings.Within(4, 1, 3), "4 is not between 1 and 3"},
		"too long":       {settings.Within(90*time.Second, 0, time.Second), "1m30s is not between 0s and 1s"},
		"not a number":   {settings.Within(math.NaN(), 0, 1), "NaN is not between 0 and 1"},
		"infinite":       {settings.Within(math.Inf(1), 0, 1), "+Inf is not between 0 and 1"},
		"allowed":        {settings.OneOf[mode]("deny", "allow", "deny"), ""},
		"not allowed":    {settings.OneOf[mode]("open", "allow", "deny"), `"open" is none of allow, deny`},
		"other case":     {settings.OneOf("JSON", "json"), `"JSON" is none of json`},
		"a control char": {settings.OneOf("\x1b[2J", "json"), `"\x1b[2J" is none of json`},
	} {
		got := ""
		if tt.err != nil {
			got = tt.err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	var m settings.Mistakes
	m.Add("FINE", nil)
	cause := errors.New("is wrong")
	m.Add("WRONG", cause)
	if len(m) != 1 || m[0].Error() != "WRONG: is wrong" || !errors.Is(m[0], cause) {
		t.Errorf("got %q", []error(m))
	}
}
