package odata

import (
	"strings"
	"unicode/utf8"
)

// Bounds of an expression. What is within them costs little to read, and its SQL
// is within PostgreSQL's own bounds.
const (
	FilterBytesMax = 32 << 10
	FilterDepthMax = 50   // parentheses, nots, calls and lambdas within each other
	FilterNodesMax = 1000 // operators, functions, operands and literals outside lists
	FilterListMax  = 1000 // literals of one list
	filterListsMax = 5000 // and of all lists
)

// Filter is a condition on the entities of a type: what $filter says
// (OData-URL 5.1.2).
type Filter struct{ root Expr }

// ParseFilter reads a filter. text is the option's decoded value. Errors: *Error.
func ParseFilter(t *EntityType, text string) (*Filter, error) {
	f, err := parseFilter(t, text)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func parseFilter(t *EntityType, text string) (*Filter, *Error) {
	p, err := newParser(t, "$filter", text)
	if err != nil {
		return nil, err
	}
	root, err := p.parse()
	if err != nil {
		return nil, err
	}
	return &Filter{root}, nil
}

// Root is the filter's syntax tree, which is not to be changed.
func (f *Filter) Root() Expr { return f.root }

// String writes the filter in its canonical form, which reads as the same filter:
// operators in lower case, no parentheses but those needed, literals in the type
// they are compared in.
func (f *Filter) String() string {
	var b strings.Builder
	f.root.print(&b, bindOr)
	return b.String()
}

// isText reports whether PostgreSQL can hold the text.
func isText(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\x00") }
