package authz

import (
	"fmt"
	"strings"
)

// Shadow is the set of policies for which a check only records what it would
// deny. The zero value is empty: the check is enforced.
type Shadow struct{ run, assistant bool }

// UnmarshalText reads a boolean, for all policies, or a comma-separated list of
// policies.
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

// String is the set as it may stand in the environment.
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

// Switches are what may be changed while the gate runs.
type Switches struct {
	// LimitShadow and QueueShadow let through what the check would deny, and record it.
	LimitShadow Shadow `env:"RATE_LIMIT_SHADOW" envDefault:"false"`
	QueueShadow Shadow `env:"QUEUE_SHADOW" envDefault:"false"`
}
