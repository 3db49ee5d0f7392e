package event

import (
	"errors"
	"strconv"
)

// Auto is the Count that Postroad finds by itself, from how the consumer answers.
const Auto Count = -1

const autoWord = "auto"

// Count is a number from 1 on, or Auto; 0 is an absent one. JSON has it as a
// number or as "auto".
type Count int

// Or returns the number, and n for Auto.
func (c Count) Or(n int) int {
	if c == Auto {
		return n
	}
	return int(c)
}

// String returns the number, or "auto".
func (c Count) String() string {
	if c == Auto {
		return autoWord
	}
	return strconv.Itoa(int(c))
}

// MarshalJSON writes the count as the API reads it.
func (c Count) MarshalJSON() ([]byte, error) {
	if c == Auto {
		return []byte(`"` + autoWord + `"`), nil
	}
	return []byte(strconv.Itoa(int(c))), nil
}

// UnmarshalJSON reads a number or "auto"; null is the zero Count. A negative
// number is refused here, as it must not be taken for Auto.
func (c *Count) UnmarshalJSON(b []byte) error {
	switch text := string(b); text {
	case "null":
		*c = 0 // the same as absent
		return nil
	case `"` + autoWord + `"`:
		*c = Auto
		return nil
	default:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return errors.New(`must be a whole number within bounds, or "auto"`)
		}
		*c = Count(n)
		return nil
	}
}
