// Package settings has the checks that the settings of several packages share, and
// the one wording for what is wrong with a setting.
package settings

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistakes are what is wrong with some settings. Each begins with the name of its
// setting, as in "QUEUE_MAX_PENDING: -1 is not between 0 and 1000000000".
type Mistakes []error

// Add takes down err as a mistake of the setting, unless err is nil.
func (m *Mistakes) Add(setting string, err error) {
	if err != nil {
		*m = append(*m, fmt.Errorf("%s: %w", setting, err))
	}
}

// Within returns an error if v is less than low, more than high, or not a number.
func Within[T cmp.Ordered](v, low, high T) error {
	if v >= low && v <= high {
		return nil
	}
	return fmt.Errorf("%v is not between %v and %v", v, low, high)
}

// OneOf returns an error if v is none of allowed.
func OneOf[T ~string](v T, allowed ...T) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return fmt.Errorf("%q is none of %s", string(v), strings.Join(names, ", "))
}
