package event

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Duration is a length of time as the API writes it: a whole number and one
// unit, `500ms`, `15s`, `10m`, `4h`, `7d`. A day is 24 hours.
type Duration time.Duration

// Day is 24 hours.
const Day = Duration(24 * time.Hour)

var durationPattern = regexp.MustCompile(`^([0-9]{1,12})(ms|s|m|h|d)$`)

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// ParseDuration reads a duration in the API's notation. The error says what
// the notation is.
func ParseDuration(s string) (Duration, error) {
	m := durationPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a duration: write a whole number and a unit, as in 500ms, 15s, 10m, 4h or 7d", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: %w", s, err)
	}
	unit := durationUnits[m[2]]
	if n > int64(1<<63-1)/int64(unit) {
		return 0, fmt.Errorf("%q is too long a duration", s)
	}
	return Duration(n * int64(unit)), nil
}

// Std returns the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes the duration in the largest unit that divides it.
func (d Duration) String() string {
	for _, unit := range []string{"d", "h", "m", "s"} {
		if size := Duration(durationUnits[unit]); d >= size && d%size == 0 {
			return strconv.FormatInt(int64(d/size), 10) + unit
		}
	}
	return strconv.FormatInt(time.Duration(d).Milliseconds(), 10) + "ms"
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
