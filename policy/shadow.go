package policy

import (
	"fmt"
	"strings"
)

// ShadowList is the set of policies for which a check is in shadow mode: it records what it
// would deny and lets it pass. With the zero value the check is enforced for all.
type ShadowList struct{ run, assistant bool }

// UnmarshalText reads a boolean (true: all policies) or a comma-separated list of
// policies, such as "run".
func (s *ShadowList) UnmarshalText(text []byte) error {
	*s = ShadowList{}
	switch strings.ToLower(string(text)) {
	case "1", "true", "yes", "on":
		*s = ShadowList{run: true, assistant: true}
		return nil
	case "0", "false", "no", "off":
		return nil
	}
	for item := range strings.SplitSeq(string(text), ",") {
		switch strings.TrimSpace(item) {
		case presetRun:
			s.run = true
		case presetAssistant:
			s.assistant = true
		default:
			return fmt.Errorf("%q is neither a boolean (true, false) nor a list of run, assistant", string(text))
		}
	}
	return nil
}

// String returns the set in a form that UnmarshalText reads.
func (s ShadowList) String() string {
	switch s {
	case ShadowList{run: true}:
		return presetRun
	case ShadowList{assistant: true}:
		return presetAssistant
	case ShadowList{}:
		return "false"
	default:
		return "true"
	}
}

// The policies of the preset: what the environment stands for.
const (
	presetRun       = "run"
	presetAssistant = "assistant"
)
