package odata_test

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"postroad/api/odata"
	"postroad/event"
)

// masks is a second evaluator, made to share no idea with the first: it evaluates
// a filter on up to 64 events at once, as the sets of those of which it is true
// and of which it is false, and compares numbers and times by their digits.
type masks struct {
	list   []event.Event
	all    uint64
	member string // of the lambda variable
	values map[string][]string
}

func newMasks(list []event.Event) *masks {
	m := &masks{list: list, all: 1<<len(list) - 1, values: map[string][]string{}}
	for i := range list {
		for _, p := range entityEvent.Properties {
			m.values[p.Name] = append(m.values[p.Name], valueDigits(odata.EventRow(&list[i], "")(p)))
		}
	}
	return m
}

// of returns the sets of events of which a Boolean expression is true and false.
func (m *masks) of(x odata.Expr) (yes, no uint64) {
	switch x := x.(type) {
	case *odata.Literal:
		switch {
		case x.Type == odata.Null:
			return 0, 0
		case x.Bool:
			return m.all, 0
		}
		return 0, m.all
	case *odata.Not:
		no, yes = m.of(x.Of)
		return yes, no
	case *odata.Logical:
		yes, no = m.all, 0
		if x.Or {
			yes, no = 0, m.all
		}
		for _, term := range x.Terms {
			y, n := m.of(term)
			if x.Or {
				yes, no = yes|y, no&n
			} else {
				yes, no = yes&y, no|n
			}
		}
		return yes, no
	case *odata.Comparison:
		yes = m.compared(x)
		return yes, m.all &^ yes
	case *odata.In:
		yes = m.in(x)
		return yes, m.all &^ yes
	case *odata.Call:
		return m.called(x)
	case *odata.Lambda:
		yes = m.lambda(x)
		return yes, m.all &^ yes
	}
	panic(fmt.Sprintf("%T is no condition", x))
}

// compared: the three orders of two values, one set each, make every operator.
func (m *masks) compared(x *odata.Comparison) uint64 {
	less, equal, greater := m.ordered(x.Left, x.Right)
	switch x.Op {
	case "eq":
		return equal
	case "ne":
		return m.all &^ equal
	case "gt":
		return greater
	case "ge":
		return greater | equal
	case "lt":
		return less
	case "le":
		return less | equal
	}
	panic(x.Op)
}

func (m *masks) ordered(a, b odata.Expr) (less, equal, greater uint64) {
	left, right := m.digits(a), m.digits(b)
	for i := range left {
		bit := uint64(1) << i
		switch {
		case left[i] == right[i]:
			equal |= bit
		case left[i] == "null" || right[i] == "null":
		case left[i] < right[i]:
			less |= bit
		default:
			greater |= bit
		}
	}
	return less, equal, greater
}

// digits are an expression's values as texts that order as the values do: null is
// "null", and nothing else is.
func (m *masks) digits(x odata.Expr) []string {
	switch x := x.(type) {
	case *odata.Literal:
		return slices.Repeat([]string{literalDigits(x)}, len(m.list))
	case *odata.Operand:
		if x.Variable == "" {
			return m.values[x.Property.Name]
		}
		return slices.Repeat([]string{"=" + m.member}, len(m.list))
	}
	yes, no := m.of(x)
	values := slices.Repeat([]string{"null"}, len(m.list))
	for i := range values {
		if yes>>i&1 == 1 {
			values[i] = "=1"
		} else if no>>i&1 == 1 {
			values[i] = "=0"
		}
	}
	return values
}

func literalDigits(l *odata.Literal) string {
	switch l.Type {
	case odata.Boolean:
		if l.Bool {
			return "=1"
		}
		return "=0"
	case odata.Int64, odata.Decimal:
		return numberDigits(l.Number)
	case odata.String:
		return "=" + l.Text
	case odata.DateTimeOffset:
		return timeDigits(l.Time) + fmt.Sprintf("%03d", l.Picoseconds)
	default:
		return "null"
	}
}

func valueDigits(value any) string {
	switch value := value.(type) {
	case int64:
		return numberDigits(new(big.Rat).SetInt64(value))
	case string:
		return "=" + value
	case time.Time:
		return timeDigits(value) + "000"
	}
	return "null"
}

// numberDigits shifts a number so that none is negative, and pads it.
func numberDigits(n *big.Rat) string {
	shift, _ := new(big.Rat).SetString("1e310")
	text := new(big.Rat).Add(n, shift).FloatString(310)
	return "=" + strings.Repeat("0", 700-len(text)) + text
}

func timeDigits(t time.Time) string { return "=" + t.UTC().Format("2006-01-02 15:04:05.000000000") }

func (m *masks) in(x *odata.In) (yes uint64) {
	if x.Collection != nil {
		for i, text := range m.digits(x.Left) {
			for _, f := range m.list[i].FeedTypes {
				if text == "="+f {
					yes |= 1 << i
				}
			}
		}
		return yes
	}
	for _, l := range x.List {
		_, equal, _ := m.ordered(x.Left, l)
		yes |= equal
	}
	return yes
}

func (m *masks) called(x *odata.Call) (yes, no uint64) {
	texts, parts := m.digits(x.Arguments[0]), m.digits(x.Arguments[1])
	for i := range texts {
		text, known := strings.CutPrefix(texts[i], "=")
		part, both := strings.CutPrefix(parts[i], "=")
		if !known || !both {
			continue
		}
		at := -1
		for j := 0; j+len(part) <= len(text); j++ {
			if text[j:j+len(part)] == part && (x.Function == "contains" || x.Function == "startswith" && j == 0 ||
				x.Function == "endswith" && j+len(part) == len(text)) {
				at = j
			}
		}
		if at >= 0 {
			yes |= 1 << i
		} else {
			no |= 1 << i
		}
	}
	return yes, no
}

// lambda goes through the members there are, not through the events.
func (m *masks) lambda(x *odata.Lambda) (some uint64) {
	for _, member := range types {
		var having uint64
		for i := range m.list {
			if slices.Contains(m.list[i].FeedTypes, member) {
				having |= 1 << i
			}
		}
		yes := m.all
		if x.Predicate != nil {
			m.member = member
			yes, _ = m.of(x.Predicate)
		}
		if x.All {
			yes = m.all &^ yes
		}
		some |= having & yes
	}
	if x.All {
		return m.all &^ some
	}
	return some
}
