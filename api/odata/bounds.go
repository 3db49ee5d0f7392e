package odata

import "math"

// Bounds are numbers from First to Last, both included; none where First is above
// Last.
type Bounds struct{ First, Last int64 }

var (
	everything = Bounds{math.MinInt64, math.MaxInt64}
	nothing    = Bounds{1, 0}
)

// Empty reports whether no number is within the bounds.
func (b Bounds) Empty() bool { return b.First > b.Last }

func (b Bounds) and(other Bounds) Bounds {
	return Bounds{max(b.First, other.First), min(b.Last, other.Last)}
}

func (b Bounds) or(other Bounds) Bounds {
	switch {
	case b.Empty():
		return other
	case other.Empty():
		return b
	}
	return Bounds{min(b.First, other.First), max(b.Last, other.Last)}
}

// Bounds are bounds of an Int64 property that is never null, such as the key,
// which hold for every entity that passes the filter. A page is read from the
// index within them, whatever else the filter says.
func (f *Filter) Bounds(property string) Bounds { return boundsOf(f.root, property, true) }

// boundsOf bounds the property where the expression is true, or false.
func boundsOf(x Expr, property string, when bool) Bounds {
	switch x := x.(type) {
	case *Literal:
		if x.Type == Boolean && x.Bool == when {
			return everything
		}
		return nothing
	case *Not:
		return boundsOf(x.Of, property, !when)
	case *Logical:
		// One term makes an or true and an and false; all of them the opposite.
		result := boundsOf(x.Terms[0], property, when)
		for _, term := range x.Terms[1:] {
			next := boundsOf(term, property, when)
			if x.Or == when {
				result = result.or(next)
			} else {
				result = result.and(next)
			}
		}
		return result
	case *Comparison:
		return boundsOfComparison(x, property, when)
	case *In:
		o, ok := x.Left.(*Operand)
		if !ok || o.Variable != "" || o.Property.Name != property || x.Collection != nil || !when {
			return everything
		}
		result := nothing
		for _, l := range x.List {
			if l.Type != Null {
				result = result.or(boundsWith("eq", l))
			}
		}
		return result
	}
	return everything
}

func boundsOfComparison(x *Comparison, property string, when bool) Bounds {
	op, left, right := x.Op, x.Left, x.Right
	if _, ok := left.(*Literal); ok {
		op, left, right = mirrored(op), right, left
	}
	l, ok := right.(*Literal)
	o, operand := left.(*Operand)
	switch {
	case !ok:
		return everything
	case operand && o.Variable == "" && o.Property.Name == property && l.Type != Null:
		if !when {
			op = opposite[op]
		}
		return boundsWith(op, l)
	case l.Type == Boolean && op == "eq" && left.Is() == Boolean && when:
		return boundsOf(left, property, l.Bool)
	}
	return everything
}

// opposite is the operator that holds where another does not.
var opposite = map[string]string{"eq": "ne", "ne": "eq", "gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}

// boundsWith are the whole numbers of which a comparison with a literal holds.
func boundsWith(op string, l *Literal) Bounds {
	op, value, constant := bound(op, l)
	n, _ := value.(int64)
	switch op {
	case "eq":
		return Bounds{n, n}
	case "gt":
		if n == math.MaxInt64 {
			return nothing
		}
		return Bounds{n + 1, math.MaxInt64}
	case "ge":
		return Bounds{n, math.MaxInt64}
	case "lt":
		if n == math.MinInt64 {
			return nothing
		}
		return Bounds{math.MinInt64, n - 1}
	case "le":
		return Bounds{math.MinInt64, n}
	case "":
		if !constant {
			return nothing
		}
	}
	return everything
}

// Required is the text that a String property has in every entity that passes the
// filter, where the filter says so plainly: by eq, alone or and-ed with the rest.
func (f *Filter) Required(property string) (text string, ok bool) {
	return requiredBy(f.root, property)
}

func requiredBy(x Expr, property string) (string, bool) {
	switch x := x.(type) {
	case *Logical:
		if x.Or {
			return "", false
		}
		for _, term := range x.Terms {
			if text, ok := requiredBy(term, property); ok {
				return text, true
			}
		}
	case *Comparison:
		left, right := x.Left, x.Right
		if _, ok := left.(*Literal); ok {
			left, right = right, left
		}
		o, operand := left.(*Operand)
		l, literal := right.(*Literal)
		if operand && literal && x.Op == "eq" && o.Variable == "" && o.Property.Name == property && l.Type == String {
			return l.Text, true
		}
	}
	return "", false
}
