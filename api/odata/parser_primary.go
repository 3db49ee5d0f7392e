package odata

import (
	"slices"
	"strings"
)

// functions are those of two strings that are offered (OData-URL 5.1.1.5).
var functions = []string{"contains", "startswith", "endswith"}

// notOffered are the functions that OData defines besides (OData-URL 5.1.1.5 to
// 5.1.1.12).
var notOffered = []string{
	"concat", "indexof", "length", "substring", "tolower", "toupper", "trim", "matchespattern",
	"hassubset", "hassubsequence", "year", "month", "day", "hour", "minute", "second",
	"fractionalseconds", "totalseconds", "totaloffsetminutes", "date", "time", "now",
	"mindatetime", "maxdatetime", "round", "floor", "ceiling", "cast", "isof", "case",
	"geo.distance", "geo.intersects", "geo.length",
}

// primary reads an operand, and the in that may follow it.
func (p *parser) primary() (placed, *Error) {
	x, err := p.operand()
	for err == nil && p.token.keyword("in") {
		var word string
		if word, err = p.operator("in"); err == nil && word != "" {
			x, err = p.in(x)
		}
	}
	return x, err
}

// operand reads a literal, a property, a variable, a call or what stands in
// parentheses.
func (p *parser) operand() (placed, *Error) {
	if err := p.node(); err != nil {
		return placed{}, err
	}
	switch {
	case p.token.kind == tokenWord:
		return p.named()
	case p.token.kind == tokenLiteral || p.token.kind == tokenString:
		l, err := p.literal()
		if err != nil {
			return placed{}, err
		}
		return placed{l, l.at}, nil
	case p.token.is("("):
		return p.deeper(p.grouped)
	}
	if p.token.kind == tokenSign {
		what := map[string]string{
			"-": "arithmetic is", "@": "parameter aliases and annotations are", "$": "$it, $this and $root are",
			"[": "lists in JSON are", "{": "objects in JSON are",
		}[p.token.text]
		if what != "" {
			return placed{}, p.refuse(NotImplemented, "%s not offered", what)
		}
	}
	return placed{}, p.unexpected("a value")
}

func (p *parser) grouped() (placed, *Error) {
	if err := p.advance(); err != nil {
		return placed{}, err
	}
	x, err := p.either()
	if err != nil {
		return x, err
	}
	return x, p.sign(")")
}

// literal reads a literal; the next token begins one.
func (p *parser) literal() (*Literal, *Error) {
	t := p.token
	l := &Literal{Type: String, Text: t.text}
	switch {
	case t.kind == tokenString:
	case t.kind == tokenLiteral:
		var kind Kind
		var detail string
		if l, kind, detail = parseLiteral(t.text); l == nil {
			return nil, p.refuse(kind, "%s", detail)
		}
	case t.kind == tokenWord && t.text == "null":
		l = &Literal{Type: Null}
	case t.keyword("true"), t.keyword("false"):
		l = &Literal{Type: Boolean, Bool: t.keyword("true")}
	case t.text == "INF", t.text == "NaN":
		return nil, p.refuse(NotImplemented, "numbers that are not finite are not offered")
	default:
		return nil, p.unexpected("a literal")
	}
	l.at = t.at
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.token.kind != tokenEnd && !p.token.spaced && p.token.kind != tokenSign {
		return nil, p.unexpected("an operator or the end")
	}
	return l, nil
}

// literalText is a literal as it was written.
func (p *parser) literalText(l *Literal) string {
	at := lexer{text: p.text, at: l.at}
	t, _ := at.next()
	return p.text[t.at:t.end]
}

// named reads what begins with a word.
func (p *parser) named() (placed, *Error) {
	word := p.token
	if word.text == "null" || word.text == "INF" || word.text == "NaN" || word.keyword("true") || word.keyword("false") {
		l, err := p.literal()
		if err != nil {
			return placed{}, err
		}
		return placed{l, word.at}, nil
	}
	if err := p.advance(); err != nil {
		return placed{}, err
	}
	switch {
	case p.token.is("("):
		return p.deeper(func() (placed, *Error) { return p.call(word) })
	case p.token.kind == tokenString && !p.token.spaced:
		return placed{}, p.prefixed(word)
	}
	if v := p.variable; v != nil && v.Variable == word.text {
		return placed{v, word.at}, nil
	}
	property := p.entity.Property(word.text)
	if property == nil {
		return placed{}, p.fail(BadRequest, word.at, "%s has no property %s", p.entity.Name, shown(word.text))
	}
	if p.token.is("/") {
		return p.deeper(func() (placed, *Error) { return p.path(property, word.at) })
	}
	return placed{&Operand{Property: property}, word.at}, nil
}

// prefixed refuses a literal of the form type'text'.
func (p *parser) prefixed(word token) *Error {
	known := []string{"duration", "binary", "geography", "geometry"}
	if slices.ContainsFunc(known, word.keyword) || strings.Contains(word.text, ".") {
		return p.fail(NotImplemented, word.at, "literals of the form %s'...' are not offered", word.text)
	}
	return p.fail(BadRequest, word.at, "there are no literals of the form %s'...'", shown(word.text))
}

// call reads a call of a function; its opening parenthesis comes next.
func (p *parser) call(word token) (placed, *Error) {
	at := slices.IndexFunc(functions, word.keyword)
	if at < 0 {
		if slices.ContainsFunc(notOffered, word.keyword) {
			return placed{}, p.fail(NotImplemented, word.at, "the function %s is not offered", word.text)
		}
		return placed{}, p.fail(BadRequest, word.at, "there is no function %s", shown(word.text))
	}
	c := &Call{Function: functions[at]}
	for i, before := range []string{"(", ","} {
		if err := p.sign(before); err != nil {
			return placed{}, err
		}
		x, err := p.either()
		if err != nil {
			return x, err
		}
		if isCollection(x.Expr) {
			return x, p.fail(NotImplemented, x.at, "%s of collections is not offered", c.Function)
		}
		if x.Is() != String && !isNull(x.Expr) {
			return x, p.fail(BadRequest, x.at, "%s takes a value of type %s, not %s", c.Function, String, x.Is())
		}
		c.Arguments[i] = x.Expr
	}
	return placed{c, word.at}, p.sign(")")
}

// path reads what follows a property and a slash: any and all of a collection.
func (p *parser) path(property *Property, at int) (placed, *Error) {
	if err := p.advance(); err != nil {
		return placed{}, err
	}
	switch {
	case !property.Collection:
		return placed{}, p.refuse(BadRequest, "%s has no parts", property.Name)
	case p.token.is("$"):
		return placed{}, p.refuse(NotImplemented, "$count and $filter of a collection are not offered")
	case p.variable != nil:
		// Their cost is that of one raised to the power of the depth.
		return placed{}, p.fail(NotImplemented, at, "any and all within any and all are not offered")
	case !p.token.keyword("any") && !p.token.keyword("all"):
		return placed{}, p.unexpected("any or all")
	}
	l := &Lambda{All: p.token.keyword("all"), Collection: property}
	if err := p.advance(); err != nil {
		return placed{}, err
	}
	if err := p.sign("("); err != nil {
		return placed{}, err
	}
	if p.token.is(")") && !l.All {
		return placed{l, at}, p.advance()
	}
	if err := p.bind(l); err != nil {
		return placed{}, err
	}
	x, err := p.either()
	if err != nil {
		return x, err
	}
	p.variable = nil
	l.Predicate = x.Expr
	if err := p.sign(")"); err != nil {
		return x, err
	}
	return placed{l, at}, p.needBoolean(x)
}

// bind reads a lambda's variable and its colon.
func (p *parser) bind(l *Lambda) *Error {
	const lengthMax = 128 // of an identifier
	name := p.token
	switch {
	case name.kind != tokenWord || strings.Contains(name.text, "."):
		return p.unexpected("the name of a variable")
	case len(name.text) > lengthMax || slices.Contains([]string{"null", "true", "false", "not", "inf", "nan"}, strings.ToLower(name.text)):
		return p.refuse(BadRequest, "a variable cannot be named %s", shown(name.text))
	}
	l.Variable = name.text
	p.variable = &Operand{Property: l.Collection, Variable: name.text}
	if err := p.advance(); err != nil {
		return err
	}
	return p.sign(":")
}

// in reads what follows in: a list of literals, or a collection.
func (p *parser) in(left placed) (placed, *Error) {
	if isCollection(left.Expr) {
		return left, p.fail(NotImplemented, left.at, "in of a collection is not offered")
	}
	e := &In{Left: left.Expr}
	if p.token.kind == tokenWord {
		property := p.entity.Property(p.token.text)
		switch {
		case property == nil || !property.Collection:
			return left, p.unexpected("a list or a collection")
		case left.Is() != property.Type && !isNull(left.Expr):
			return left, p.refuse(BadRequest, "%s is of type %s, which has no members of type %s", property.Name, property.typeName(), left.Is())
		}
		e.Collection = property
		return placed{e, left.at}, p.advance()
	}
	if err := p.sign("("); err != nil {
		return left, err
	}
	for !p.token.is(")") || len(e.List) > 0 {
		if len(e.List) > 0 {
			if p.token.is(")") {
				break
			}
			if err := p.sign(","); err != nil {
				return left, err
			}
		}
		l, err := p.member(left, len(e.List))
		if err != nil {
			return left, err
		}
		e.List = append(e.List, l)
	}
	return placed{e, left.at}, p.sign(")")
}

// member reads a literal of a list, in the type of what is looked for.
func (p *parser) member(left placed, before int) (*Literal, *Error) {
	if p.listed++; before == FilterListMax || p.listed > filterListsMax {
		return nil, p.refuse(BadRequest, "lists hold at most %d values, %d together", FilterListMax, filterListsMax)
	}
	at := p.token.at
	l, err := p.literal()
	if err != nil {
		return nil, err
	}
	want := left.Is()
	cast, ok := l.cast(want)
	if !ok {
		return nil, p.fail(BadRequest, at, "%s is not of type %s", shown(p.literalText(l)), want)
	}
	return cast, nil
}
