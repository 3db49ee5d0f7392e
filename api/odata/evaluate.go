package odata

import (
	"math/big"
	"slices"
	"strings"
	"time"
)

// truth is a value of OData's logic: null is the third, unknown (OData-URL
// 5.1.1.1.7 to 5.1.1.1.9). Their order makes and the smallest, or the greatest.
type truth int8

const (
	no truth = iota - 1
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// Matches reports whether the filter lets an entity pass: whether it is true of
// it. It is the meaning of the filter that the SQL of Where is held against.
func (f *Filter) Matches(row Row) bool {
	return (&evaluation{row: row}).truth(f.root) == yes
}

// evaluation is the evaluation of a filter on one entity.
type evaluation struct {
	row Row
	// member is the value of the lambda variable in scope.
	member string
}

// truth is the value of a Boolean expression.
func (v *evaluation) truth(x Expr) truth {
	switch x := x.(type) {
	case *Literal:
		if x.Type == Null {
			return unknown
		}
		return truthOf(x.Bool)
	case *Logical:
		return v.logical(x)
	case *Not:
		return -v.truth(x.Of)
	case *Comparison:
		return truthOf(compareValues(x.Op, v.value(x.Left), v.value(x.Right)))
	case *In:
		return truthOf(v.in(x))
	case *Call:
		return v.call(x)
	case *Lambda:
		return truthOf(v.lambda(x))
	}
	return unknown
}

func (v *evaluation) logical(x *Logical) truth {
	result := v.truth(x.Terms[0])
	for _, term := range x.Terms[1:] {
		if x.Or {
			result = max(result, v.truth(term))
		} else {
			result = min(result, v.truth(term))
		}
	}
	return result
}

func (v *evaluation) in(x *In) bool {
	left := v.value(x.Left)
	if x.Collection != nil {
		text, ok := left.(string)
		list, _ := v.row(x.Collection).([]string)
		return ok && slices.Contains(list, text)
	}
	return slices.ContainsFunc(x.List, func(l *Literal) bool { return compareValues("eq", left, v.value(l)) })
}

// call is null where an argument is (OData-URL 5.1.1.4).
func (v *evaluation) call(x *Call) truth {
	text, ok := v.value(x.Arguments[0]).(string)
	part, both := v.value(x.Arguments[1]).(string)
	if !ok || !both {
		return unknown
	}
	switch x.Function {
	case "contains":
		return truthOf(strings.Contains(text, part))
	case "startswith":
		return truthOf(strings.HasPrefix(text, part))
	default:
		return truthOf(strings.HasSuffix(text, part))
	}
}

func (v *evaluation) lambda(x *Lambda) bool {
	list, _ := v.row(x.Collection).([]string)
	if x.Predicate == nil {
		return len(list) > 0
	}
	for _, member := range list {
		inner := evaluation{row: v.row, member: member}
		if (inner.truth(x.Predicate) == yes) != x.All {
			return !x.All
		}
	}
	return x.All
}

// instant is a point in time and what a literal says beyond its nanoseconds.
type instant struct {
	time.Time
	picoseconds int
}

// value is the value of any expression: nil, bool, *big.Rat, string or instant.
func (v *evaluation) value(x Expr) any {
	switch x := x.(type) {
	case *Literal:
		switch x.Type {
		case Null:
			return nil
		case Boolean:
			return x.Bool
		case Int64, Decimal:
			return x.Number
		case String:
			return x.Text
		case DateTimeOffset:
			return instant{x.Time, x.Picoseconds}
		}
	case *Operand:
		if x.Variable != "" {
			return v.member
		}
		switch value := v.row(x.Property).(type) {
		case int64:
			return new(big.Rat).SetInt64(value)
		case time.Time:
			return instant{value, 0}
		default:
			return value
		}
	default:
		if t := v.truth(x); t != unknown {
			return t == yes
		}
	}
	return nil
}

// compareValues compares two values. null equals itself and only itself, and so
// ge and le hold between two nulls; nothing is greater or less than null
// (OData-URL 5.1.1.1.1 to 5.1.1.1.6).
func compareValues(op string, left, right any) bool {
	if left == nil || right == nil {
		equal := left == nil && right == nil
		switch op {
		case "eq", "ge", "le":
			return equal
		case "ne":
			return !equal
		}
		return false
	}
	order := 0
	switch l := left.(type) {
	case bool:
		order = int(truthOf(l)-truthOf(right.(bool))) / 2
	case *big.Rat:
		order = l.Cmp(right.(*big.Rat))
	case string:
		order = strings.Compare(l, right.(string))
	case instant:
		r := right.(instant)
		if order = l.Compare(r.Time); order == 0 {
			order = l.picoseconds - r.picoseconds
		}
	}
	return holds(op, order)
}

// holds reports whether an operator holds between two values of that order:
// below, at or above zero where the left one is less, equal or greater.
func holds(op string, order int) bool {
	switch op {
	case "eq":
		return order == 0
	case "ne":
		return order != 0
	case "gt":
		return order > 0
	case "ge":
		return order >= 0
	case "lt":
		return order < 0
	default:
		return order <= 0
	}
}
