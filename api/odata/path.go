package odata

import (
	"math/big"
	"slices"
	"strings"
)

// PathBytesMax bounds the part of a path below the service root: a record's name
// and key, each character percent-encoded at its longest, fit.
const PathBytesMax = 8 << 10

// ResourceKind is what a path leads to.
type ResourceKind uint8

// Kinds of resources.
const (
	// ServiceRoot is the service document (OData-Protocol 11.1.1).
	ServiceRoot ResourceKind = iota
	// Metadata is $metadata (OData-Protocol 11.1.2).
	Metadata
	// EntitySet is the collection of all entities.
	EntitySet
	// EntityCount is their number, as text (OData-Protocol 11.2.10).
	EntityCount
	// Entity is one entity, by its key.
	Entity
	// Record is a record that events speak of, by its resource name and key.
	Record
)

var resourceKinds = map[ResourceKind]string{
	ServiceRoot: "the service document", Metadata: "$metadata", EntitySet: "an entity set",
	EntityCount: "$count", Entity: "an entity", Record: "a record",
}

// String names the kind in a sentence.
func (k ResourceKind) String() string { return resourceKinds[k] }

// Resource is what a path leads to.
type Resource struct {
	Kind ResourceKind
	// Key is the key of an Entity.
	Key int64
	// Name and RecordKey are those of a Record.
	Name, RecordKey string
}

// ParsePath reads the part of a URL's path below the service root, as it came:
// with its percent-encoding, so that an encoded slash is part of a key
// (OData-URL 2). Slashes at either end may be missing. Errors: *Error, NotFound for
// paths that lead nowhere.
func ParsePath(t *EntityType, raw string) (Resource, error) {
	r, err := parsePath(t, raw)
	if err != nil {
		return Resource{}, err
	}
	return r, nil
}

func parsePath(t *EntityType, raw string) (Resource, *Error) {
	if len(raw) > PathBytesMax {
		return Resource{}, refuse(BadRequest, "", "the path is longer than %d bytes", PathBytesMax)
	}
	var segments []string
	for _, s := range splitPath(strings.TrimSuffix(strings.TrimPrefix(raw, "/"), "/")) {
		segment, ok := decode(s, false)
		if !ok {
			return Resource{}, refuse(BadRequest, "", "the path has a percent-encoding that cannot be read")
		}
		segments = append(segments, segment)
	}
	first, rest := segments[0], segments[1:]
	if strings.HasPrefix(first, "$") {
		return symbolic(first, rest)
	}
	if first == "" {
		if len(rest) > 0 {
			return Resource{}, nowhere()
		}
		return Resource{Kind: ServiceRoot}, nil
	}
	name, predicate, closed := strings.Cut(first, "(")
	switch {
	case !closed && len(rest) > 0 && !strings.HasPrefix(rest[0], "$"):
		// A key as a segment of its own (OData-URL 4.3.1).
		predicate, rest = quote(rest[0]), rest[1:]
	case closed:
		if predicate, closed = strings.CutSuffix(predicate, ")"); !closed {
			return Resource{}, refuse(BadRequest, "", "the key has no closing parenthesis")
		}
	case name == t.Name:
		return ofEntitySet(rest)
	default:
		return Resource{}, refuse(NotFound, "", "there is no entity set %s", shown(name))
	}
	r := Resource{Kind: Record, Name: name}
	var err *Error
	if name == t.Name {
		r = Resource{Kind: Entity}
		if r.Key, err = entityKey(t, predicate); err != nil && !closed {
			err = nowhere()
		}
	} else {
		r.RecordKey, err = recordKey(predicate)
	}
	if err == nil && len(rest) > 0 {
		err = belowEntity(t, r.Kind, rest)
	}
	return r, err
}

// splitPath splits a raw path at its slashes. One that a client left raw within a
// quoted key belongs to the key, where the quotes close.
func splitPath(raw string) []string {
	var segments []string
	start, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch {
		case raw[i] == '\'':
			quoted = !quoted
		case strings.HasPrefix(raw[i:], "%27"):
			quoted = !quoted
		case raw[i] == '/' && !quoted:
			segments = append(segments, raw[start:i])
			start = i + 1
		}
	}
	if quoted {
		return strings.Split(raw, "/")
	}
	return append(segments, raw[start:])
}

func nowhere() *Error { return refuse(NotFound, "", "the path leads to no resource") }

// symbolic is a resource whose name begins with $; these are case-sensitive
// (OData-ABNF: odataRelativeUri).
func symbolic(first string, rest []string) (Resource, *Error) {
	name, _, _ := strings.Cut(first, "(")
	switch {
	case first == "$metadata" && len(rest) == 0:
		return Resource{Kind: Metadata}, nil
	case slices.Contains([]string{"$batch", "$entity", "$all", "$crossjoin"}, name):
		return Resource{}, refuse(NotImplemented, "", "%s is not offered", name)
	}
	return Resource{}, nowhere()
}

// ofEntitySet is what lies below the entity set.
func ofEntitySet(rest []string) (Resource, *Error) {
	switch {
	case len(rest) == 0:
		return Resource{Kind: EntitySet}, nil
	case len(rest) == 1 && rest[0] == "$count":
		return Resource{Kind: EntityCount}, nil
	}
	name, _, _ := strings.Cut(rest[0], "(")
	if slices.Contains([]string{"$filter", "$each", "$query", "$ref"}, name) {
		return Resource{}, refuse(NotImplemented, "", "%s of an entity set is not offered", name)
	}
	return Resource{}, nowhere()
}

// belowEntity refuses what lies below one entity: parts of it that OData defines
// are not offered, all else is nowhere.
func belowEntity(t *EntityType, kind ResourceKind, rest []string) *Error {
	if slices.Contains([]string{"$value", "$ref", "$query"}, rest[0]) || kind == Entity && t.Property(rest[0]) != nil {
		return refuse(NotImplemented, "", "%s of an entity is not offered", rest[0])
	}
	return nowhere()
}

// keyLiteral reads a key predicate without its parentheses, with the property's
// name before it or without (OData-ABNF: simpleKey, compoundKey).
func keyLiteral(predicate string) (name string, l *Literal, err *Error) {
	p := &parser{lexer: lexer{target: "key", text: predicate}}
	if err := p.advance(); err != nil {
		return "", nil, err
	}
	if p.token.is("@") {
		return "", nil, p.refuse(NotImplemented, "parameter aliases are not offered")
	}
	if before, after, ok := strings.Cut(predicate, "="); ok && p.token.kind == tokenWord {
		name = strings.Trim(before, " \t")
		p = &parser{lexer: lexer{target: "key", text: after}}
		if err := p.advance(); err != nil {
			return "", nil, err
		}
	}
	if l, err = p.literal(); err != nil {
		return "", nil, err
	}
	if p.token.kind != tokenEnd {
		return "", nil, p.unexpected("the end")
	}
	return name, l, nil
}

// entityKey reads the key of an entity, a number that may stand in quotes.
func entityKey(t *EntityType, predicate string) (int64, *Error) {
	name, l, err := keyLiteral(predicate)
	if err != nil {
		return 0, err
	}
	if name != "" && name != t.Key {
		return 0, refuse(BadRequest, "key", "%s is not the key of %s", shown(name), t.Name)
	}
	number := new(big.Rat)
	whole := l.Type == Int64
	if whole {
		number = l.Number
	} else if l.Type == String {
		var ok bool
		number, whole, ok = parseNumber(l.Text)
		whole = whole && ok
	}
	if !whole {
		return 0, refuse(BadRequest, "key", "must be a whole number")
	}
	if !number.Num().IsInt64() {
		return 0, refuse(NotFound, "", "there is no %s with this key", t.Name)
	}
	return number.Num().Int64(), nil
}

// recordKey reads the key of a record: a string, or a number as it is written.
// Whatever its property is called, it is the record's one key.
func recordKey(predicate string) (string, *Error) {
	_, l, err := keyLiteral(predicate)
	switch {
	case err != nil:
		return "", err
	case l.Type == String && l.Text != "":
		return l.Text, nil
	case l.Type == Int64:
		return l.Number.Num().String(), nil
	}
	return "", refuse(BadRequest, "key", "must be a string that is not empty, or a whole number")
}

// encode percent-encodes a text as part of one segment of a path.
func encode(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if strings.IndexByte(rawInKeys, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
