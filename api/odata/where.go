package odata

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Columns names the SQL expression of each property, in parentheses where it is no
// plain column: a bigint, text, text[] or
// timestamptz that is null only where the property is nullable.
type Columns map[string]string

// Where appends the filter's values to args and returns it as a condition in
// PostgreSQL's SQL that is true exactly of the rows that pass; of others it is
// false or null. No text of the filter gets into the SQL. Where columns lack a
// property the filter speaks of, that is an error.
//
// Plain comparisons come out as a column, an operator and an argument, so that
// indexes serve them; strings compare by their bytes, as COLLATE "C" does.
func (f *Filter) Where(columns Columns, args *[]any) (string, error) {
	w := &writer{columns: columns, args: args}
	sql := w.condition(f.root)
	if w.missing != "" {
		return "", fmt.Errorf("write filter as SQL: no column for property %s", w.missing)
	}
	return sql, nil
}

// writer writes expressions as SQL.
type writer struct {
	columns Columns
	args    *[]any
	missing string
}

// argument appends a value of an SQL type.
func (w *writer) argument(value any, sqlType string) string {
	*w.args = append(*w.args, value)
	return "$" + strconv.Itoa(len(*w.args)) + "::" + sqlType
}

func (w *writer) column(p *Property) string {
	column, ok := w.columns[p.Name]
	if !ok {
		w.missing = p.Name
	}
	return column
}

const (
	sqlTrue  = "TRUE"
	sqlFalse = "FALSE"
	sqlNull  = "NULL::boolean"
)

func sqlBool(b bool) string {
	if b {
		return sqlTrue
	}
	return sqlFalse
}

// condition is a Boolean expression as SQL that may stand beside any operator.
// SQL's and, or and not are those of OData.
func (w *writer) condition(x Expr) string {
	switch x := x.(type) {
	case *Literal:
		if x.Type == Null {
			return sqlNull
		}
		return sqlBool(x.Bool)
	case *Logical:
		terms := make([]string, len(x.Terms))
		for i, term := range x.Terms {
			terms[i] = w.condition(term)
		}
		if x.Or {
			return "(" + strings.Join(terms, " OR ") + ")"
		}
		return "(" + strings.Join(terms, " AND ") + ")"
	case *Not:
		return "(NOT " + w.condition(x.Of) + ")"
	case *Comparison:
		return w.comparison(x.Op, x.Left, x.Right)
	case *In:
		return w.in(x)
	case *Call:
		return w.call(x)
	case *Lambda:
		return w.lambda(x)
	}
	return sqlNull
}

// comparison is a comparison, which in OData is never null.
func (w *writer) comparison(op string, left, right Expr) string {
	l, leftLiteral := left.(*Literal)
	r, rightLiteral := right.(*Literal)
	switch {
	case leftLiteral && rightLiteral:
		v := &evaluation{}
		return sqlBool(compareValues(op, v.value(l), v.value(r)))
	case leftLiteral:
		return w.comparison(mirrored(op), right, left)
	case rightLiteral && r.Type == Null:
		return w.withNull(op, left)
	case rightLiteral && r.Type != Boolean:
		return w.withLiteral(op, left.(*Operand), r)
	}
	a, b := w.value(left), w.value(right)
	switch op {
	case "eq":
		return "(" + a + " IS NOT DISTINCT FROM " + b + ")"
	case "ne":
		return "(" + a + " IS DISTINCT FROM " + b + ")"
	}
	if left.Is() == String {
		a += ` COLLATE "C"`
	}
	if op == "gt" || op == "lt" {
		return "((" + a + " " + sqlOperators[op] + " " + b + ") IS TRUE)"
	}
	if left.Is() != Boolean {
		return "((" + a + " " + sqlOperators[op] + " " + b + ") IS TRUE OR " + a + " IS NULL AND " + w.value(right) + " IS NULL)"
	}
	// Conditions are written once each: SQL that doubles with every level of a
	// filter would be the end of the server. false, true and null are 0, 1 and 2,
	// and so a pair of them is a number.
	pairs := map[string]string{"ge": "0, 3, 4, 8", "le": "0, 1, 4, 8"}[op]
	return "(coalesce(" + a + "::integer, 2) * 3 + coalesce(" + b + "::integer, 2) IN (" + pairs + "))"
}

var sqlOperators = map[string]string{"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}

// mirrored is the operator that holds with its operands exchanged.
func mirrored(op string) string {
	if other, ok := map[string]string{"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}[op]; ok {
		return other
	}
	return op
}

// value is the value of an expression that is no literal but a Boolean one.
func (w *writer) value(x Expr) string {
	o, ok := x.(*Operand)
	switch {
	case !ok:
		return w.condition(x)
	case o.Variable != "":
		return "f.member"
	}
	return w.column(o.Property)
}

// withNull compares with null: eq, ge and le are true of null alone, gt and lt of
// nothing.
func (w *writer) withNull(op string, x Expr) string {
	o, operand := x.(*Operand)
	never := operand && !o.nullable()
	switch {
	case op == "gt", op == "lt":
		return sqlFalse
	case never:
		return sqlBool(op == "ne")
	case op == "ne":
		return "(" + w.value(x) + " IS NOT NULL)"
	}
	return "(" + w.value(x) + " IS NULL)"
}

// withLiteral compares an operand with a literal that is neither null nor Boolean.
func (w *writer) withLiteral(op string, o *Operand, l *Literal) string {
	op, value, constant := bound(op, l)
	column := w.value(o)
	switch {
	case op == "" && (!constant || !o.nullable()):
		return sqlBool(constant)
	case op == "":
		return "(" + column + " IS NOT NULL)"
	}
	plain := column
	if o.Property.Type == String && op != "eq" && op != "ne" {
		plain += ` COLLATE "C"`
	}
	sql := plain + " " + sqlOperators[op] + " " + w.argument(value, sqlTypes[o.Property.Type])
	switch {
	case !o.nullable():
		return "(" + sql + ")"
	case op == "ne":
		return "(" + sql + " OR " + column + " IS NULL)"
	}
	return "(" + sql + " AND " + column + " IS NOT NULL)"
}

var sqlTypes = map[Type]string{Int64: "bigint", String: "text", DateTimeOffset: "timestamptz"}

// bound is a comparison with a literal as one with a value that the column's type
// can hold: whole numbers within 64 bits, times in microseconds. op is empty where
// the literal alone decides: constant then says what holds of all values that are
// not null.
func bound(op string, l *Literal) (newOp string, value any, constant bool) {
	switch l.Type {
	case Int64, Decimal:
		floor, exact := floorOf(l.Number)
		if !floor.IsInt64() {
			return "", nil, holds(op, -l.Number.Sign())
		}
		newOp, constant = rounded(op, exact)
		return newOp, floor.Int64(), constant
	case DateTimeOffset:
		floor := l.Time.Truncate(time.Microsecond)
		newOp, constant = rounded(op, floor.Equal(l.Time) && l.Picoseconds == 0)
		return newOp, floor, constant
	default:
		return op, l.Text, false
	}
}

// rounded is a comparison with a value that was rounded down, exactly or not.
func rounded(op string, exact bool) (newOp string, constant bool) {
	if exact {
		return op, false
	}
	switch op {
	case "gt", "ge":
		return "gt", false
	case "lt", "le":
		return "le", false
	}
	return "", op == "ne"
}

// floorOf is the greatest whole number that is not above n.
func floorOf(n *big.Rat) (floor *big.Int, exact bool) {
	// Euclidean division rounds down, as denominators are positive.
	return new(big.Int).Div(n.Num(), n.Denom()), n.IsInt()
}

// in is membership, which is never null.
func (w *writer) in(x *In) string {
	if x.Collection != nil {
		return w.inCollection(x)
	}
	if l, ok := x.Left.(*Literal); ok {
		v := &evaluation{}
		return sqlBool(slices.ContainsFunc(x.List, func(m *Literal) bool { return compareValues("eq", v.value(l), v.value(m)) }))
	}
	o, ok := x.Left.(*Operand)
	if !ok {
		return w.inBooleans(x)
	}
	var values []any
	null := false
	for _, m := range x.List {
		if m.Type == Null {
			null = true
		} else if op, value, _ := bound("eq", m); op != "" {
			values = append(values, value)
		}
	}
	terms := []string{}
	if null && o.nullable() {
		terms = append(terms, w.value(o)+" IS NULL")
	}
	if len(values) > 0 {
		sql := w.value(o) + " = ANY (" + w.list(o.Property.Type, values) + ")"
		if o.nullable() {
			sql += " AND " + w.value(o) + " IS NOT NULL"
		}
		terms = append(terms, sql)
	}
	if len(terms) == 0 {
		return sqlFalse
	}
	return "(" + strings.Join(terms, " OR ") + ")"
}

// inBooleans is membership of a Boolean expression, which is written once however
// long the list is.
func (w *writer) inBooleans(x *In) string {
	numbers := []int32{} // as in comparison; nil would be null
	for _, m := range x.List {
		switch {
		case m.Type == Null:
			numbers = append(numbers, 2)
		case m.Bool:
			numbers = append(numbers, 1)
		default:
			numbers = append(numbers, 0)
		}
	}
	return "(coalesce(" + w.condition(x.Left) + "::integer, 2) = ANY (" + w.argument(numbers, "integer[]") + "))"
}

// list appends values of one type as one argument.
func (w *writer) list(t Type, values []any) string {
	switch t {
	case Int64:
		return w.argument(typed[int64](values), "bigint[]")
	case DateTimeOffset:
		return w.argument(typed[time.Time](values), "timestamptz[]")
	default:
		return w.argument(typed[string](values), "text[]")
	}
}

func typed[T any](values []any) []T {
	list := make([]T, len(values))
	for i, v := range values {
		list[i], _ = v.(T)
	}
	return list
}

func (w *writer) inCollection(x *In) string {
	sql := w.text(x.Left) + " = ANY (" + w.column(x.Collection) + ")"
	if nullable(x.Left) {
		return "((" + sql + ") IS TRUE)"
	}
	return "(" + sql + ")"
}

// nullable reports whether an expression that is no Boolean may be null.
func nullable(x Expr) bool {
	o, ok := x.(*Operand)
	return isNull(x) || ok && o.nullable()
}

// text is a String or null as SQL.
func (w *writer) text(x Expr) string {
	l, ok := x.(*Literal)
	switch {
	case !ok:
		return w.value(x)
	case l.Type == Null:
		return "NULL::text"
	}
	return w.argument(l.Text, "text")
}

// call is a function of strings. None of the forms knows patterns, so that no
// character of an argument means anything but itself.
func (w *writer) call(x *Call) string {
	text, part := w.text(x.Arguments[0]), w.text(x.Arguments[1])
	switch x.Function {
	case "contains":
		return "(strpos(" + text + ", " + part + ") > 0)"
	case "startswith":
		return "(" + text + " ^@ " + part + ")"
	}
	length := "length(" + part + ")"
	if l, ok := x.Arguments[1].(*Literal); ok && l.Type == String {
		length = strconv.Itoa(utf8.RuneCountInString(l.Text))
	}
	return "(right(" + text + ", " + length + ") = " + part + ")"
}

// lambda asks the members of a collection.
func (w *writer) lambda(x *Lambda) string {
	if x.Predicate == nil {
		return "(cardinality(" + w.column(x.Collection) + ") > 0)"
	}
	from := "EXISTS (SELECT FROM unnest(" + w.column(x.Collection) + ") AS f (member) WHERE "
	predicate := w.condition(x.Predicate)
	if x.All {
		return "(NOT " + from + predicate + " IS NOT TRUE))"
	}
	return "(" + from + predicate + "))"
}
