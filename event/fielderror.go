package event

import (
	"fmt"
	"strings"
)

// FieldError says what is wrong with one member of a request.
type FieldError struct {
	// Pointer is the member's JSON Pointer (RFC 6901); "" is the whole body.
	Pointer string `json:"pointer"`
	// Detail says what is wrong and what would be right; safe to show.
	Detail string `json:"detail"`
}

// FieldErrors is what is wrong with a request, in the order of its members.
type FieldErrors []FieldError

// Add notes that the member at pointer is wrong.
func (e *FieldErrors) Add(pointer, detail string) {
	*e = append(*e, FieldError{pointer, detail})
}

// Addf is Add with a pointer made from a format.
func (e *FieldErrors) Addf(pointerFormat, detail string, args ...any) {
	e.Add(fmt.Sprintf(pointerFormat, args...), detail)
}

// Err returns nil where nothing is wrong.
func (e FieldErrors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Error implements error.
func (e FieldErrors) Error() string {
	parts := make([]string, len(e))
	for i, f := range e {
		parts[i] = strings.TrimSpace(f.Pointer + " " + f.Detail)
	}
	return strings.Join(parts, "; ")
}
