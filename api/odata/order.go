package odata

import (
	"fmt"
	"slices"
	"strings"
)

// OrderKey is one key of an order.
type OrderKey struct {
	Property   *Property
	Descending bool
}

// Order is an order of entities in which no two are equal: its last key is the
// entity type's own. null comes before all values, or after them where the order
// is descending (OData-URL 5.1.5); strings are ordered by their bytes.
type Order []OrderKey

// ParseOrderBy reads $orderby (OData-URL 5.1.5). An empty text is the order by the
// key, which is that of every answer (OData-Protocol 11.2.6.6: a stable order).
// Only properties order: expressions are not offered. Errors: *Error.
func ParseOrderBy(t *EntityType, text string) (Order, error) {
	order, err := parseOrderBy(t, text)
	if err != nil {
		return nil, err
	}
	return order, nil
}

func parseOrderBy(t *EntityType, text string) (Order, *Error) {
	p, err := newParser(t, "$orderby", text)
	if err != nil {
		return nil, err
	}
	var order Order
	if err := p.advance(); err != nil {
		return nil, err
	}
	for p.token.kind != tokenEnd || len(order) > 0 {
		key, err := p.orderKey()
		if err != nil {
			return nil, err
		}
		// A property that orders already cannot order once more.
		if !slices.ContainsFunc(order, func(k OrderKey) bool { return k.Property == key.Property }) {
			order = append(order, key)
		}
		if p.token.kind == tokenEnd {
			break
		}
		if err := p.sign(","); err != nil {
			return nil, err
		}
	}
	return order.total(t), nil
}

// total ends the order at the key, after which nothing is left to order.
func (o Order) total(t *EntityType) Order {
	key := t.Property(t.Key)
	at := slices.IndexFunc(o, func(k OrderKey) bool { return k.Property == key })
	if at >= 0 {
		return o[:at+1]
	}
	return append(o, OrderKey{Property: key})
}

func (p *parser) orderKey() (OrderKey, *Error) {
	x, err := p.either()
	if err != nil {
		return OrderKey{}, err
	}
	o, ok := x.Expr.(*Operand)
	switch {
	case !ok:
		return OrderKey{}, p.fail(NotImplemented, x.at, "only properties order, not expressions")
	case o.Property.Collection:
		return OrderKey{}, p.fail(BadRequest, x.at, "%s is a collection, which has no order", o.Property.Name)
	}
	key := OrderKey{Property: o.Property, Descending: p.token.keyword("desc")}
	if key.Descending || p.token.keyword("asc") {
		return key, p.advance()
	}
	return key, nil
}

// String is the order as $orderby would say it.
func (o Order) String() string {
	parts := make([]string, len(o))
	for i, k := range o {
		parts[i] = k.Property.Name + " asc"
		if k.Descending {
			parts[i] = k.Property.Name + " desc"
		}
	}
	return strings.Join(parts, ",")
}

// SQL is the order as what follows ORDER BY.
func (o Order) SQL(columns Columns) (string, error) {
	parts := make([]string, len(o))
	for i, k := range o {
		column, ok := columns[k.Property.Name]
		if !ok {
			return "", fmt.Errorf("write order as SQL: no column for property %s", k.Property.Name)
		}
		parts[i] = column
		if k.Property.Type == String {
			parts[i] += ` COLLATE "C"`
		}
		if k.Descending {
			parts[i] += " DESC"
		}
		switch {
		case k.Property.Nullable && k.Descending:
			parts[i] += " NULLS LAST"
		case k.Property.Nullable:
			parts[i] += " NULLS FIRST"
		}
	}
	return strings.Join(parts, ", "), nil
}

// Values are an entity's values of the order's keys, which say where it stands.
func (o Order) Values(row Row) []any {
	values := make([]any, len(o))
	for i, k := range o {
		values[i] = row(k.Property)
	}
	return values
}

// After appends to args and returns, as a condition in SQL, what comes after the
// entity with those values: the next page begins there (a keyset).
func (o Order) After(columns Columns, last []any, args *[]any) (string, error) {
	if len(last) != len(o) {
		return "", fmt.Errorf("write keyset as SQL: %d values for %d keys", len(last), len(o))
	}
	w := &writer{columns: columns, args: args}
	var cases, equal []string
	for i, k := range o {
		column := w.column(k.Property)
		if last[i] == nil {
			if !k.Descending {
				cases = append(cases, both(equal, column+" IS NOT NULL"))
			}
			equal = append(equal, column+" IS NULL")
			continue
		}
		value := w.argument(last[i], sqlTypes[k.Property.Type])
		ordered, op := column, " > "
		if k.Property.Type == String {
			ordered += ` COLLATE "C"`
		}
		if k.Descending {
			op = " < "
		}
		beyond := ordered + op + value
		if k.Descending && k.Property.Nullable {
			beyond = "(" + beyond + " OR " + column + " IS NULL)"
		}
		cases = append(cases, both(equal, beyond))
		equal = append(equal, column+" = "+value)
	}
	if w.missing != "" {
		return "", fmt.Errorf("write keyset as SQL: no column for property %s", w.missing)
	}
	return "(" + strings.Join(cases, " OR ") + ")", nil
}

// both joins conditions that all have to hold.
func both(equal []string, last string) string {
	return strings.Join(append(slices.Clone(equal), last), " AND ")
}
