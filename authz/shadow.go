package authz

import (
	"fmt"
	"strings"
)

// Shadow is the set of policies for which a check is in shadow mode: it records what it
// would deny and lets it pass. With the zero value the check is enforced for all.
type Shadow struct{ run, assistant bool }

// UnmarshalText reads a boolean (true: all policies) or a comma-separated list of
// policies, such as "run".
func (s *Shadow) UnmarshalText(text []byte) error {
	*s = Shadow{}
	switch strings.ToLower(string(text)) {
	case "1", "true", "yes", "on":
		*s = Shadow{run: true, assistant: true}
		return nil
	case "0", "false", "no", "off":
		return nil
	}
	for item := range strings.SplitSeq(string(text), ",") {
		switch Policy(strings.TrimSpace(item)) {
		case PolicyRun:
			s.run = true
		case PolicyAssistant:
			s.assistant = true
		default:
			return fmt.Errorf("%q is neither a boolean (true, false) nor a list of run, assistant", string(text))
		}
	}
	return nil
}

// String returns the set in a form that UnmarshalText reads.
func (s Shadow) String() string {
	switch s {
	case Shadow{run: true}:
		return string(PolicyRun)
	case Shadow{assistant: true}:
		return string(PolicyAssistant)
	case Shadow{}:
		return "false"
	default:
		return "true"
	}
}

// has says whether the check is in shadow mode for p.
func (s Shadow) has(p Policy) bool {
	return p == PolicyRun && s.run || p == PolicyAssistant && s.assistant
}

// Switches are the settings that can change while the gate runs.
type Switches struct {
	// LimitShadow and QueueShadow say for which policies the rate limits and the queue
	// checks are in shadow mode.
	LimitShadow Shadow `env:"RATE_LIMIT_SHADOW" envDefault:"false"`
	QueueShadow Shadow `env:"QUEUE_SHADOW" envDefault:"false"`
}
