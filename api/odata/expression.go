package odata

import (
	"math/big"
	"strconv"
	"strings"
)

// Expr is a node of a filter's syntax tree: a *Logical, *Not, *Comparison, *In,
// *Call, *Lambda, *Operand or *Literal.
type Expr interface {
	// Is is the type of the expression's value.
	Is() Type
	// print appends the expression; parents with a binding of more than the
	// expression's own put it into parentheses.
	print(b *strings.Builder, binding int)
}

// How strongly operators bind (OData-URL 5.1.1.16): an operand that binds less
// than its operator needs stands in parentheses.
const (
	bindOr = iota + 1
	bindAnd
	bindEquality
	bindRelation
	bindUnary
	bindPrimary
)

// Logical is a chain of and, or of or.
type Logical struct {
	// Or: the terms are alternatives; else all have to be true.
	Or bool
	// Terms are two or more; none is a Logical of the same operator.
	Terms []Expr
}

// Not is the negation of a Boolean.
type Not struct{ Of Expr }

// Comparison compares two values of one type, or of two number types.
type Comparison struct {
	// Op is eq, ne, gt, ge, lt or le.
	Op          string
	Left, Right Expr
}

// In is true where a value is a member of a list of literals, or of a
// property that is a collection.
type In struct {
	Left Expr
	List []*Literal
	// Collection is the property; nil: the list counts.
	Collection *Property
}

// Call is a call of a function of two strings.
type Call struct {
	// Function is contains, startswith or endswith.
	Function  string
	Arguments [2]Expr
}

// Lambda is any or all over a property that is a collection (OData-URL 5.1.1.13).
type Lambda struct {
	All        bool
	Collection *Property
	// Variable is the name of the member that the predicate speaks of.
	Variable string
	// Predicate is nil in any(): true where there is a member at all.
	Predicate Expr
}

// Operand is the value of a property, or of a lambda's variable.
type Operand struct {
	// Property is the property, or the collection the variable runs over.
	Property *Property
	// Variable is the variable's name; empty: it is the property.
	Variable string
}

// Is implements Expr.
func (e *Logical) Is() Type { return Boolean }

// Is implements Expr.
func (e *Not) Is() Type { return Boolean }

// Is implements Expr.
func (e *Comparison) Is() Type { return Boolean }

// Is implements Expr.
func (e *In) Is() Type { return Boolean }

// Is implements Expr.
func (e *Call) Is() Type { return Boolean }

// Is implements Expr.
func (e *Lambda) Is() Type { return Boolean }

// Is implements Expr.
func (e *Operand) Is() Type { return e.Property.Type }

// Is implements Expr.
func (l *Literal) Is() Type { return l.Type }

// nullable reports whether the operand may be null.
func (e *Operand) nullable() bool { return e.Variable == "" && e.Property.Nullable }

// equality reports whether the operator is eq or ne, which bind less than the
// others.
func (e *Comparison) equality() bool { return e.Op == "eq" || e.Op == "ne" }

func parentheses(b *strings.Builder, needed bool, inner func()) {
	if needed {
		b.WriteByte('(')
	}
	inner()
	if needed {
		b.WriteByte(')')
	}
}

func (e *Logical) print(b *strings.Builder, binding int) {
	own, word := bindAnd, " and "
	if e.Or {
		own, word = bindOr, " or "
	}
	parentheses(b, binding > own, func() {
		for i, term := range e.Terms {
			if i > 0 {
				b.WriteString(word)
			}
			term.print(b, own)
		}
	})
}

func (e *Not) print(b *strings.Builder, binding int) {
	parentheses(b, binding > bindUnary, func() {
		b.WriteString("not ")
		e.Of.print(b, bindUnary)
	})
}

func (e *Comparison) print(b *strings.Builder, binding int) {
	own := bindRelation
	if e.equality() {
		own = bindEquality
	}
	parentheses(b, binding > own, func() {
		e.Left.print(b, own)
		b.WriteString(" " + e.Op + " ")
		e.Right.print(b, own+1)
	})
}

func (e *In) print(b *strings.Builder, binding int) {
	parentheses(b, binding > bindUnary, func() {
		e.Left.print(b, bindPrimary)
		b.WriteString(" in ")
		if e.Collection != nil {
			b.WriteString(e.Collection.Name)
			return
		}
		b.WriteByte('(')
		for i, l := range e.List {
			if i > 0 {
				b.WriteByte(',')
			}
			l.print(b, bindPrimary)
		}
		b.WriteByte(')')
	})
}

func (e *Call) print(b *strings.Builder, _ int) {
	b.WriteString(e.Function)
	b.WriteByte('(')
	e.Arguments[0].print(b, bindOr)
	b.WriteByte(',')
	e.Arguments[1].print(b, bindOr)
	b.WriteByte(')')
}

func (e *Lambda) print(b *strings.Builder, _ int) {
	b.WriteString(e.Collection.Name)
	if e.All {
		b.WriteString("/all(")
	} else {
		b.WriteString("/any(")
	}
	if e.Predicate != nil {
		b.WriteString(e.Variable + ":")
		e.Predicate.print(b, bindOr)
	}
	b.WriteByte(')')
}

func (e *Operand) print(b *strings.Builder, _ int) {
	if e.Variable != "" {
		b.WriteString(e.Variable)
		return
	}
	b.WriteString(e.Property.Name)
}

func (l *Literal) print(b *strings.Builder, _ int) {
	switch l.Type {
	case Null:
		b.WriteString("null")
	case Boolean:
		b.WriteString(strconv.FormatBool(l.Bool))
	case Int64:
		b.WriteString(l.Number.Num().String())
	case Decimal:
		b.WriteString(printDecimal(l.Number))
	case String:
		b.WriteString(quote(l.Text))
	case DateTimeOffset:
		b.WriteString(l.Time.Format("2006-01-02T15:04:05.000000000"))
		if l.Picoseconds > 0 {
			b.WriteString(strconv.Itoa(1000 + l.Picoseconds)[1:])
		}
		b.WriteByte('Z')
	}
}

// quote writes a string literal.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// printDecimal writes a number whose denominator is a power of ten, with a point.
func printDecimal(n *big.Rat) string {
	digits := 1
	ten, scaled := big.NewRat(10, 1), new(big.Rat).Mul(n, big.NewRat(10, 1))
	for !scaled.IsInt() {
		scaled.Mul(scaled, ten)
		digits++
	}
	return n.FloatString(digits)
}
