package odata

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// QueryBytesMax bounds a query string.
const QueryBytesMax = 64 << 10

// Query is what the query options of a request ask for (OData-URL 5).
type Query struct {
	// Filter is nil without $filter.
	Filter *Filter
	// Order is never empty: it ends with the key.
	Order Order
	// Select are the properties asked for in the entity type's order, each once;
	// nil: all of them.
	Select []*Property
	// Top is the most entities of all pages together; math.MaxInt64 without $top.
	Top int64
	// Skip is how many entities come before the first page.
	Skip int64
	// Count asks for the number of entities, which knows no Top and Skip.
	Count bool
	// Format is $format as it came; empty: the Accept header counts.
	Format string
	// Token is $skiptoken as it came; empty: this is the first page.
	Token string

	// options are the system query options but format and token, as they came:
	// a page's token is good for them only.
	options map[string]string
	raw     string
}

// option is what is known of a system query option.
type option struct {
	// on are the resources that it applies to; none: it is not offered.
	on []ResourceKind
	// read takes its value.
	read func(q *Query, t *EntityType, value string) *Error
}

var anyEntity = []ResourceKind{EntitySet, Entity}

// options are the system query options by their name without $, in lower case:
// those of OData 4.01, of its extension for aggregation, and of protocol versions
// that 4.01 names as such.
var options = map[string]option{
	"filter":    {[]ResourceKind{EntitySet, EntityCount}, (*Query).readFilter},
	"select":    {anyEntity, (*Query).readSelect},
	"orderby":   {[]ResourceKind{EntitySet, EntityCount}, (*Query).readOrderBy},
	"top":       {[]ResourceKind{EntitySet, EntityCount}, (*Query).readTop},
	"skip":      {[]ResourceKind{EntitySet, EntityCount}, (*Query).readSkip},
	"count":     {[]ResourceKind{EntitySet}, (*Query).readCount},
	"skiptoken": {[]ResourceKind{EntitySet}, (*Query).readToken},
	"format":    {[]ResourceKind{ServiceRoot, Metadata, EntitySet, Entity, Record}, (*Query).readFormat},
	"apply":     {}, "compute": {}, "deltatoken": {}, "expand": {}, "id": {}, "index": {}, "schemaversion": {}, "search": {},
}

// ParseQuery reads the raw query of a URL, that is with its percent-encoding, for
// a resource of that kind. Names of system query options may come in any case and
// without their $ (OData-Protocol 13.2), each once. Options that OData defines and
// this service does not offer are NotImplemented (OData-Protocol 13.1.1), other
// names with $ are a BadRequest, and custom options are ignored (OData-URL 5.2).
// Errors: *Error.
func ParseQuery(t *EntityType, kind ResourceKind, raw string) (*Query, error) {
	q := &Query{Top: math.MaxInt64, Order: Order(nil).total(t), options: map[string]string{}, raw: raw}
	given, err := splitQuery(raw)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, o := range given {
		known, ok := options[o.name]
		switch {
		case !ok && strings.HasPrefix(o.written, "$"):
			return nil, refuse(BadRequest, shownOption(o.written), "is no system query option")
		case !ok && strings.HasPrefix(o.written, "@"):
			return nil, refuse(NotImplemented, shownOption(o.written), "parameter aliases are not offered")
		case !ok:
			continue // custom
		}
		target := "$" + o.name
		switch {
		case seen[o.name]:
			return nil, refuse(BadRequest, target, "must not appear twice")
		case known.read == nil:
			return nil, refuse(NotImplemented, target, "is not offered")
		case !slices.Contains(known.on, kind):
			return nil, refuse(BadRequest, target, "does not apply to %s", kind)
		}
		seen[o.name] = true
		if err := known.read(q, t, o.value); err != nil {
			return nil, err
		}
		if o.name != "format" && o.name != "skiptoken" {
			q.options[o.name] = o.value
		}
	}
	return q, nil
}

// queryOption is one option of a query string.
type queryOption struct {
	raw string
	// written is the decoded name, name the same without $ and in lower case.
	written, name string
	value         string
}

// splitQuery splits a raw query into its options and decodes them: first split,
// then decoded (OData-URL 2), '+' as a space.
func splitQuery(raw string) ([]queryOption, *Error) {
	if len(raw) > QueryBytesMax {
		return nil, refuse(BadRequest, "", "the query is longer than %d bytes", QueryBytesMax)
	}
	var list []queryOption
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, okName := decode(rawName, true)
		value, okValue := decode(rawValue, true)
		if !okName || !okValue {
			return nil, refuse(BadRequest, shownOption(rawName), "has a percent-encoding that cannot be read")
		}
		list = append(list, queryOption{
			raw: part, written: name, value: value,
			name: strings.ToLower(strings.TrimPrefix(name, "$")),
		})
	}
	return list, nil
}

// decode undoes percent-encoding; what comes out is text.
func decode(raw string, plus bool) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '+' && plus:
			b.WriteByte(' ')
		case c != '%':
			b.WriteByte(c)
		default:
			if i+2 >= len(raw) {
				return "", false
			}
			n, err := strconv.ParseUint(raw[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b.WriteByte(byte(n))
			i += 2
		}
	}
	return b.String(), isText(b.String())
}

// shownOption makes the name of an option that a client made up fit to be shown.
func shownOption(name string) string { return strings.Trim(shown(name), `"`) }

func (q *Query) readFilter(t *EntityType, value string) *Error {
	f, err := parseFilter(t, value)
	q.Filter = f
	return err
}

func (q *Query) readOrderBy(t *EntityType, value string) *Error {
	if strings.Trim(value, " \t") == "" {
		return refuse(BadRequest, "$orderby", "is empty")
	}
	order, err := parseOrderBy(t, value)
	q.Order = order
	return err
}

// readSelect reads $select: names, and * for all (OData-URL 5.1.4). A name may
// stand twice.
func (q *Query) readSelect(t *EntityType, value string) *Error {
	const target = "$select"
	wanted := map[*Property]bool{}
	all := false
	for item := range strings.SplitSeq(value, ",") {
		name := strings.Trim(item, " \t")
		p := t.Property(name)
		before, _, nested := strings.Cut(name, "(")
		switch {
		case p != nil:
			wanted[p] = true
		case name == "*":
			all = true
		case name == "":
			return refuse(BadRequest, target, "has an empty name")
		case nested && t.Property(before) != nil:
			return refuse(NotImplemented, target, "options of %s are not offered", before)
		default:
			return refuse(BadRequest, target, "%s has no property %s", t.Name, shown(name))
		}
	}
	if all {
		return nil
	}
	for _, p := range t.Properties {
		if wanted[p] {
			q.Select = append(q.Select, p)
		}
	}
	return nil
}

func (q *Query) readTop(_ *EntityType, value string) *Error {
	var err *Error
	q.Top, err = readNumber("$top", value)
	return err
}

func (q *Query) readSkip(_ *EntityType, value string) *Error {
	var err *Error
	q.Skip, err = readNumber("$skip", value)
	return err
}

// readNumber reads a number that is not negative (1*DIGIT); beyond 64 bits it is
// as good as the greatest.
func readNumber(target, value string) (int64, *Error) {
	if !areDigits(value) {
		return 0, refuse(BadRequest, target, "must be a whole number that is not negative")
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return math.MaxInt64, nil // digits only: out of range
	}
	return n, nil
}

func (q *Query) readCount(_ *EntityType, value string) *Error {
	q.Count = strings.EqualFold(value, "true")
	if !q.Count && !strings.EqualFold(value, "false") {
		return refuse(BadRequest, "$count", "must be true or false")
	}
	return nil
}

func (q *Query) readFormat(_ *EntityType, value string) *Error {
	if value == "" {
		return refuse(BadRequest, "$format", "is empty")
	}
	q.Format = value
	return nil
}

func (q *Query) readToken(_ *EntityType, value string) *Error {
	if value == "" {
		return refuse(BadRequest, "$skiptoken", "is empty")
	}
	q.Token = value
	return nil
}
