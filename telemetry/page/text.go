package page

import (
	"math"
	"strconv"
	"time"
)

// unknown is shown in place of a value that is not known. It must not look like 0.
const unknown = "unknown"

// count writes a number with a comma between thousands, and at most one decimal.
func count(n float64) string {
	if math.Abs(n) >= 1e15 || math.IsNaN(n) {
		return strconv.FormatFloat(n, 'g', 4, 64)
	}
	s := strconv.FormatFloat(math.Round(n*10)/10, 'f', -1, 64)
	end := len(s)
	for i := range len(s) {
		if s[i] == '.' {
			end = i
		}
	}
	for i := end - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// perMinute writes a rate per second as one per minute.
func perMinute(n float64) string { return count(n * 60) }

// seconds writes a time in the two largest units that it has.
func seconds(s float64) string {
	if s < 10 {
		return strconv.FormatFloat(math.Round(s*10)/10, 'f', -1, 64) + " s"
	}
	if s >= math.MaxInt64/1e9 {
		return count(s) + " s"
	}
	whole := int64(s)
	for _, unit := range []struct {
		size, part      int64
		name, partsName string
	}{{86400, 3600, " d", " h"}, {3600, 60, " h", " min"}, {60, 1, " min", " s"}} {
		if whole < unit.size {
			continue
		}
		text := strconv.FormatInt(whole/unit.size, 10) + unit.name
		if parts := whole % unit.size / unit.part; parts > 0 {
			text += " " + strconv.FormatInt(parts, 10) + unit.partsName
		}
		return text
	}
	return strconv.FormatInt(whole, 10) + " s"
}

// clock writes a time of the day, and the day if it is not today.
func clock(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05 UTC")
	}
	return t.Format("2006-01-02 15:04:05 UTC")
}
