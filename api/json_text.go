package api

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"postroad/event"
)

// malformed turns a parser's error into what the client is told. Text that is
// JSON but for its characters (invalid UTF-8, half a surrogate pair) is a
// fault of one member; anything else is a fault of the whole body.
func (d *eventDecoder) malformed(err error) error { return malformedJSON(d.text, err) }

func malformedJSON(text []byte, err error) error {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &malformedError{"", "must not end in the middle of a value"}
		}
		return &malformedError{"", "must be JSON"}
	}
	pointer := strings.ToValidUTF8(string(syntax.JSONPointer), "\ufffd")
	if errors.Is(syntax.Err, io.ErrUnexpectedEOF) || errors.Is(syntax.Err, io.EOF) {
		return &malformedError{pointer, "must not end in the middle of a value"}
	}
	if lenient(text) {
		return event.FieldErrors{{Pointer: pointer, Detail: "must be valid Unicode: no invalid UTF-8, no half of a surrogate pair"}}
	}
	return &malformedError{pointer, "must be JSON: " + strings.ToValidUTF8(syntax.Err.Error(), "\ufffd")}
}

// lenient reports whether text is JSON when its characters are not looked at.
// It runs on refused texts only.
func lenient(text []byte) bool {
	return jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// escapedNUL is the one spelling of NUL that JSON has within strings.
var escapedNUL = []byte(`\u0000`)

// hasEscapedNUL reports whether JSON text spells a NUL in a string. A
// backslash that is itself escaped starts no escape: `\\u0000` is harmless.
func hasEscapedNUL(text []byte) bool {
	for from := 0; ; {
		i := bytes.Index(text[from:], escapedNUL)
		if i < 0 {
			return false
		}
		i += from
		backslashes := 1
		for i-backslashes >= 0 && text[i-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 1 {
			return true
		}
		from = i + 1
	}
}

// pointerOfNUL finds the first string with a NUL; a member with one in its name
// is told by the object it is in.
func pointerOfNUL(text []byte) string {
	dec := jsontext.NewDecoder(bytes.NewBuffer(text), syntaxOptions...)
	for {
		token, err := dec.ReadToken()
		if err != nil {
			return ""
		}
		if token.Kind() != '"' || strings.IndexByte(token.String(), 0) < 0 {
			continue
		}
		pointer := dec.StackPointer()
		if strings.IndexByte(string(pointer), 0) >= 0 {
			pointer = pointer.Parent()
		}
		return string(pointer)
	}
}

// kindName names a JSON kind as a person would.
func kindName(kind jsontext.Kind) string {
	switch kind {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	default:
		return "something else"
	}
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escapePointer makes a member's name one token of a JSON Pointer (RFC 6901
// §3). Names can be long and hostile, so that only a part of a long one is told.
func escapePointer(name string) string {
	const namedMax = 100
	if len(name) > namedMax {
		name = strings.ToValidUTF8(name[:namedMax], "") + "..."
	}
	return pointerEscapes.Replace(name)
}

// validRFC3339 reports whether s is a date-time of RFC 3339 §5.6. time.Parse
// is no judge: it takes a comma before the fraction and refuses leap seconds
// and lower-case letters, which the grammar allows.
func validRFC3339(s string) bool {
	const shortest = len("2006-01-02T15:04:05Z")
	if len(s) < shortest || s[4] != '-' || s[7] != '-' || s[10] != 'T' && s[10] != 't' || s[13] != ':' || s[16] != ':' {
		return false
	}
	year, okY := digits(s[0:4])
	month, okM := digits(s[5:7])
	day, okD := digits(s[8:10])
	hour, okH := digits(s[11:13])
	minute, okN := digits(s[14:16])
	second, okS := digits(s[17:19])
	if !okY || !okM || !okD || !okH || !okN || !okS || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour > 23 || minute > 59 || second > 60 {
		return false
	}
	return validFractionAndOffset(s[19:])
}

func validFractionAndOffset(rest string) bool {
	if rest[0] == '.' {
		n := 1
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		if n == 1 || n == len(rest) {
			return false
		}
		rest = rest[n:]
	}
	if rest == "Z" || rest == "z" {
		return true
	}
	if len(rest) != len("+00:00") || rest[0] != '+' && rest[0] != '-' || rest[3] != ':' {
		return false
	}
	hour, okH := digits(rest[1:3])
	minute, okM := digits(rest[4:6])
	return okH && okM && hour <= 23 && minute <= 59
}

func digits(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}
