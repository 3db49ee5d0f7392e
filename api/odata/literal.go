package odata

import (
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Bounds of literals.
const (
	numberLengthMax   = 300 // characters of a number without an exponent
	mantissaLengthMax = 100 // and of what stands before one
	numberExponentMax = 100
)

// Literal is a value written in an expression (OData-ABNF 7).
type Literal struct {
	// Type says which of the members below holds the value; Null: none.
	Type Type
	Bool bool
	// Number is the value of an Int64 and of a Decimal.
	Number *big.Rat
	Text   string
	// Time is the value of a DateTimeOffset down to nanoseconds, Picoseconds is
	// what was written beyond them.
	Time        time.Time
	Picoseconds int

	at int
}

// parseLiteral reads a literal that begins with a digit or a sign. Literals of
// types that no property has are told from those that nobody knows.
func parseLiteral(text string) (*Literal, Kind, string) {
	if number, integer, ok := parseNumber(text); ok {
		if integer {
			return &Literal{Type: Int64, Number: number}, 0, ""
		}
		return &Literal{Type: Decimal, Number: number}, 0, ""
	}
	if at, picoseconds, ok := parseTime(text); ok {
		return &Literal{Type: DateTimeOffset, Time: at, Picoseconds: picoseconds}, 0, ""
	}
	switch {
	case text == "-INF":
		return nil, NotImplemented, "numbers that are not finite are not offered"
	case isGUID(text) && len(text) == 36:
		return nil, BadRequest, "a GUID fits no property"
	case isLocalTime(text):
		return nil, BadRequest, "the date and time " + shown(text) + " needs a time zone, such as Z"
	case len(text) == 10 && isLocalTime(text+"T00:00"):
		return nil, BadRequest, "the date " + shown(text) + " needs a time and a time zone, such as T00:00:00Z"
	}
	return nil, BadRequest, shown(text) + " is no number and no date and time"
}

// parseNumber reads a number (decimalLiteral); integer: it is written as one.
func parseNumber(text string) (number *big.Rat, integer, ok bool) {
	digits := strings.TrimLeft(text, "+-")
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(digits), "e")
	if len(text)-len(digits) > 1 || len(mantissa) > numberLengthMax || scientific && len(mantissa) > mantissaLengthMax {
		return nil, false, false
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	if !areDigits(whole) || point && !areDigits(fraction) {
		return nil, false, false
	}
	if scientific {
		n, err := strconv.Atoi(exponent)
		if err != nil || n < -numberExponentMax || n > numberExponentMax {
			return nil, false, false
		}
	}
	number, ok = new(big.Rat).SetString(text)
	return number, !point && !scientific, ok
}

func areDigits(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return text != ""
}

// isLocalTime reports whether a text is a date and a time without a time zone.
func isLocalTime(text string) bool {
	_, _, ok := parseTime(text + "Z")
	return ok
}

// parseTime reads a date and time with its time zone (dateTimeOffsetLiteral), of
// the years 1 to 9999. Seconds and their fraction may be left out, the sixtieth
// second is the next minute's first.
func parseTime(text string) (at time.Time, picoseconds int, ok bool) {
	const form = "0000-00-00T00:00"
	if len(text) <= len(form) {
		return time.Time{}, 0, false
	}
	for i := range len(form) {
		c := text[i]
		if form[i] == '0' && !isDigit(c) || form[i] == 'T' && c|0x20 != 't' || form[i] != '0' && form[i] != 'T' && c != form[i] {
			return time.Time{}, 0, false
		}
	}
	number := func(from, to int) int { n, _ := strconv.Atoi(text[from:to]); return n }
	year, month, day, hour, minute := number(0, 4), number(5, 7), number(8, 10), number(11, 13), number(14, 16)
	second, nanoseconds, picoseconds, rest, ok := parseSeconds(text[len(form):])
	if !ok {
		return time.Time{}, 0, false
	}
	offset, ok := parseZone(rest)
	if !ok || year == 0 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 {
		return time.Time{}, 0, false
	}
	if midnight := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC); midnight.Day() != day {
		return time.Time{}, 0, false // such as 30 February
	}
	at = time.Date(year, time.Month(month), day, hour, minute, second, nanoseconds, time.UTC).Add(-offset)
	return at, picoseconds, at.Year() >= 1 && at.Year() <= 9999
}

// parseSeconds reads what may follow the minutes: seconds and up to twelve digits
// of their fraction.
func parseSeconds(text string) (second, nanoseconds, picoseconds int, rest string, ok bool) {
	if text == "" || text[0] != ':' {
		return 0, 0, 0, text, true
	}
	if len(text) < 3 || !areDigits(text[1:3]) {
		return 0, 0, 0, "", false
	}
	second, _ = strconv.Atoi(text[1:3])
	text = text[3:]
	if text == "" || text[0] != '.' {
		return second, 0, 0, text, second <= 60
	}
	n := 1
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	fraction := text[1:n]
	if fraction == "" || len(fraction) > 12 {
		return 0, 0, 0, "", false
	}
	padded := fraction + strings.Repeat("0", 12-len(fraction))
	nanoseconds, _ = strconv.Atoi(padded[:9])
	picoseconds, _ = strconv.Atoi(padded[9:])
	return second, nanoseconds, picoseconds, text[n:], second <= 60
}

// parseZone reads a time zone: Z, or hours and minutes before or behind UTC.
func parseZone(text string) (time.Duration, bool) {
	if text == "Z" || text == "z" {
		return 0, true
	}
	if len(text) != len("+00:00") || text[0] != '+' && text[0] != '-' || text[3] != ':' || !areDigits(text[1:3]+text[4:]) {
		return 0, false
	}
	hours, _ := strconv.Atoi(text[1:3])
	minutes, _ := strconv.Atoi(text[4:])
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if text[0] == '-' {
		offset = -offset
	}
	return offset, hours <= 23 && minutes <= 59
}

// cast makes a literal one of another type, where OData has that: a string is cast
// to the primitive type it is compared with (OData-Protocol 13.2: 4.01 services);
// numbers compare as numbers and null with everything.
func (l *Literal) cast(to Type) (*Literal, bool) {
	switch {
	case l.Type == to, l.Type == Null, to == Null, isNumber(l.Type) && isNumber(to):
		return l, true
	case l.Type != String:
		return nil, false
	}
	made := &Literal{Type: to, at: l.at}
	ok := false
	switch to {
	default:
		return nil, false
	case Boolean:
		made.Bool = strings.EqualFold(l.Text, "true")
		ok = made.Bool || strings.EqualFold(l.Text, "false")
	case Int64:
		var integer bool
		made.Number, integer, ok = parseNumber(l.Text)
		ok = ok && integer && made.Number.Num().IsInt64()
	case Decimal:
		made.Number, _, ok = parseNumber(l.Text)
	case DateTimeOffset:
		made.Time, made.Picoseconds, ok = parseTime(l.Text)
	}
	return made, ok
}

func isNumber(t Type) bool { return t == Int64 || t == Decimal }
