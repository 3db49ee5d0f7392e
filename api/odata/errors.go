package odata

import (
	"fmt"
	"net/http"
	"unicode/utf8"
)

// Kind says what sort of refusal an Error is.
type Kind uint8

// Kinds of refusal.
const (
	// BadRequest: the request breaks a rule of OData or names what the entity type
	// does not have.
	BadRequest Kind = iota
	// NotFound: the path leads to nothing.
	NotFound
	// NotAcceptable: the representation asked for is not offered
	// (OData-Protocol 8.2.1).
	NotAcceptable
	// NotImplemented: OData defines it and this service does not offer it
	// (OData-Protocol 9.3.1).
	NotImplemented
)

var kinds = map[Kind]struct {
	status int
	code   string
}{
	BadRequest:     {http.StatusBadRequest, "BadRequest"},
	NotFound:       {http.StatusNotFound, "NotFound"},
	NotAcceptable:  {http.StatusNotAcceptable, "NotAcceptable"},
	NotImplemented: {http.StatusNotImplemented, "NotImplemented"},
}

// Status is the HTTP status of the refusal.
func (k Kind) Status() int { return kinds[k].status }

// Code is the refusal's word in an OData error body (OData-Protocol 9.4).
func (k Kind) Code() string { return kinds[k].code }

// Error is a refusal that may be shown to whom sent the request.
type Error struct {
	Kind Kind
	// Target is what is wrong: a query option such as "$filter", a header, or
	// empty.
	Target string
	// Position is where it is wrong, in characters of the target's decoded value
	// from 1; 0: the whole of it.
	Position int
	// Detail says what is wrong, in one sentence without its end.
	Detail string
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Detail
	if e.Position > 0 {
		text = fmt.Sprintf("at character %d: %s", e.Position, text)
	}
	if e.Target != "" {
		text = e.Target + " " + text
	}
	return text
}

func refuse(kind Kind, target, format string, args ...any) *Error {
	return &Error{Kind: kind, Target: target, Detail: fmt.Sprintf(format, args...)}
}

// shown makes a text that a client made up fit to be shown.
func shown(text string) string {
	const charactersMax = 60
	n := 0
	for i := range text {
		if n == charactersMax {
			return fmt.Sprintf("%q...", text[:i])
		}
		n++
	}
	return fmt.Sprintf("%q", text)
}

// character turns an offset in bytes into a position in characters from 1.
func character(text string, offset int) int {
	return utf8.RuneCountInString(text[:min(offset, len(text))]) + 1
}
