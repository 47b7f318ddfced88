package jobmetrics

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/refrakt-hub/refrakt-gate/internal/settings"
	"github.com/refrakt-hub/refrakt-gate/jobmetrics/job"
)

// Config is what the operator decides about the job metrics.
type Config struct {
	// Sources are the values of a job's kwargs.source that are counted by name;
	// all others count as other.
	Sources Sources `env:"JOB_SOURCES" envDefault:"api,assistant"`
}

// Validate returns every mistake; each begins with the name of its variable.
func (c Config) Validate() []error {
	var mistakes settings.Mistakes
	mistakes.Add("JOB_SOURCES", c.Sources.validate())
	return mistakes
}

// Sources is a list without duplicates. It is comma-separated in the environment.
type Sources []string

// UnmarshalText reads a comma-separated list.
func (s *Sources) UnmarshalText(text []byte) error {
	*s = nil
	for name := range strings.SplitSeq(string(text), ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(*s, name) {
			*s = append(*s, name)
		}
	}
	return nil
}

// String is the list as it may stand in the environment.
func (s Sources) String() string { return strings.Join(s, ",") }

const (
	maxSources   = 50 // keeps the number of series small
	maxNameBytes = 256
)

func (s Sources) validate() error {
	if len(s) > maxSources {
		return fmt.Errorf("%d sources are more than %d", len(s), maxSources)
	}
	for _, name := range s {
		switch {
		case name == job.SourceOther || name == sourceUnknown:
			return fmt.Errorf("%q is the label of jobs whose source is not in the list", name)
		case len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unfit):
			return fmt.Errorf("%q is too long or holds spaces or control characters", name)
		}
	}
	return nil
}

func unfit(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// sourceUnknown is the label of jobs that name no source.
const sourceUnknown = "unknown"

// label is the label value of a job's source: one of a closed set.
func (s Sources) label(source string) string {
	switch {
	case source == "":
		return sourceUnknown
	case slices.Contains(s, source):
		return source
	default:
		return job.SourceOther
	}
}
