package odata

import "slices"

// parser reads an expression by recursive descent (OData-ABNF 4), each level of
// binding in a method of its own.
type parser struct {
	lexer
	entity *EntityType
	// token is the next one.
	token token
	// variable is that of the lambda whose predicate is being read; nil: none is.
	variable *Operand

	depth, nodes, listed int
}

// newParser refuses a text that is too long, or is none; target is the option it
// stands in.
func newParser(t *EntityType, target, text string) (*parser, *Error) {
	switch {
	case len(text) > FilterBytesMax:
		return nil, refuse(BadRequest, target, "is longer than %d bytes", FilterBytesMax)
	case !isText(text):
		return nil, refuse(BadRequest, target, "must be valid UTF-8 without NUL")
	}
	return &parser{lexer: lexer{target: target, text: text}, entity: t}, nil
}

// placed is an expression and where it begins.
type placed struct {
	Expr
	at int
}

func (p *parser) advance() *Error {
	var err *Error
	p.token, err = p.next()
	return err
}

// refuse is a refusal at the next token.
func (p *parser) refuse(kind Kind, format string, args ...any) *Error {
	return p.fail(kind, p.token.at, format, args...)
}

// unexpected refuses the next token.
func (p *parser) unexpected(wanted string) *Error {
	if p.token.kind == tokenEnd {
		return p.refuse(BadRequest, "the expression ends where %s is expected", wanted)
	}
	return p.refuse(BadRequest, "%s stands where %s is expected", shown(p.text[p.token.at:p.token.end]), wanted)
}

// sign takes a sign that must come next.
func (p *parser) sign(sign string) *Error {
	if !p.token.is(sign) {
		return p.unexpected(sign)
	}
	return p.advance()
}

// node counts a node.
func (p *parser) node() *Error {
	if p.nodes++; p.nodes > FilterNodesMax {
		return p.refuse(BadRequest, "there are more than %d operators and operands", FilterNodesMax)
	}
	return nil
}

// deeper reads something one level down.
func (p *parser) deeper(read func() (placed, *Error)) (placed, *Error) {
	if p.depth++; p.depth > FilterDepthMax {
		return placed{}, p.refuse(BadRequest, "the expression is nested more than %d deep", FilterDepthMax)
	}
	x, err := read()
	p.depth--
	return x, err
}

// parse reads a whole expression that is a Boolean.
func (p *parser) parse() (Expr, *Error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	x, err := p.either()
	if err != nil {
		return nil, err
	}
	if p.token.kind != tokenEnd {
		return nil, p.unexpected("an operator or the end")
	}
	return x.Expr, p.needBoolean(x)
}

// needBoolean refuses an expression that is neither a Boolean nor null.
func (p *parser) needBoolean(x placed) *Error {
	if x.Is() == Boolean && !isCollection(x.Expr) || isNull(x.Expr) {
		return nil
	}
	return p.fail(BadRequest, x.at, "a condition is expected here, not a value of type %s", typeOf(x.Expr))
}

// operator takes one of the words if it comes next as an operator. White space
// belongs around an operator (RWS); beside a parenthesis it may be left out, as
// many clients do. What else could stand before it without a space ends with it.
func (p *parser) operator(words ...string) (string, *Error) {
	at := slices.IndexFunc(words, p.token.keyword)
	if at < 0 {
		return "", nil
	}
	if err := p.advance(); err != nil {
		return "", err
	}
	if !p.token.spaced && !p.token.is("(") && p.token.kind != tokenEnd {
		return "", p.refuse(BadRequest, "a space is expected after %s", words[at])
	}
	return words[at], p.node()
}

// either reads terms joined by or, which binds least.
func (p *parser) either() (placed, *Error) { return p.logical("or", p.both) }

// both reads terms joined by and.
func (p *parser) both() (placed, *Error) { return p.logical("and", p.equality) }

func (p *parser) logical(word string, term func() (placed, *Error)) (placed, *Error) {
	x, err := term()
	if err != nil {
		return x, err
	}
	var terms []Expr
	for {
		found, err := p.operator(word)
		if err != nil {
			return x, err
		}
		if found == "" {
			break
		}
		next, err := term()
		if err != nil {
			return x, err
		}
		if terms == nil {
			if err := p.needBoolean(x); err != nil {
				return x, err
			}
			terms = splice(terms, x.Expr, word)
		}
		if err := p.needBoolean(next); err != nil {
			return x, err
		}
		terms = splice(terms, next.Expr, word)
	}
	if terms == nil {
		return x, nil
	}
	return placed{&Logical{Or: word == "or", Terms: terms}, x.at}, nil
}

// splice appends a term; the terms of a chain of the same operator are those of
// the chain it stands in.
func splice(terms []Expr, x Expr, word string) []Expr {
	if inner, ok := x.(*Logical); ok && inner.Or == (word == "or") {
		return append(terms, inner.Terms...)
	}
	return append(terms, x)
}

// equality reads eq and ne.
func (p *parser) equality() (placed, *Error) {
	x, err := p.relation()
	if err != nil {
		return x, err
	}
	return p.compared(x, p.relation, "eq", "ne")
}

// relation reads gt, ge, lt and le. What binds more than they do and is defined
// by OData, arithmetic and has, is told from what is none.
func (p *parser) relation() (placed, *Error) {
	x, err := p.unary()
	if err != nil {
		return x, err
	}
	return p.compared(x, p.unary, "gt", "ge", "lt", "le")
}

func (p *parser) compared(x placed, operand func() (placed, *Error), words ...string) (placed, *Error) {
	depth := p.depth
	defer func() { p.depth = depth }()
	for {
		at := p.token.at
		if slices.ContainsFunc([]string{"add", "sub", "mul", "div", "divby", "mod", "has"}, p.token.keyword) {
			return x, p.refuse(NotImplemented, "the operator %s is not offered", p.token.text)
		}
		op, err := p.operator(words...)
		if err != nil || op == "" {
			return x, err
		}
		right, err := operand()
		if err != nil {
			return x, err
		}
		// A chain of comparisons is a tree that grows to the left.
		if p.depth++; p.depth > FilterDepthMax {
			return x, p.fail(BadRequest, at, "the expression is nested more than %d deep", FilterDepthMax)
		}
		left, err := p.comparable(x, right, at)
		if err != nil {
			return x, err
		}
		if right, err = p.comparable(right, left, at); err != nil {
			return x, err
		}
		x = placed{&Comparison{Op: op, Left: left.Expr, Right: right.Expr}, x.at}
	}
}

// comparable returns x as it is compared with another expression: a literal in the
// other's type.
func (p *parser) comparable(x, with placed, operator int) (placed, *Error) {
	for _, side := range []placed{x, with} {
		if isCollection(side.Expr) {
			return x, p.fail(BadRequest, side.at, "%s is a collection: ask for its members with any or all", side.Expr.(*Operand).Property.Name)
		}
	}
	want := with.Is()
	if l, ok := x.Expr.(*Literal); ok {
		_, both := with.Expr.(*Literal)
		if both && want == String {
			return x, nil // that one is cast
		}
		cast, ok := l.cast(want)
		if !ok {
			return x, p.fail(BadRequest, x.at, "%s is not of type %s", shown(p.literalText(l)), want)
		}
		return placed{cast, x.at}, nil
	}
	if _, ok := with.Expr.(*Literal); ok {
		return x, nil // that one is cast
	}
	if is := x.Is(); is != want && (!isNumber(is) || !isNumber(want)) {
		return x, p.fail(BadRequest, operator, "values of type %s and %s do not compare", is, want)
	}
	return x, nil
}

// unary reads not. It binds more than a comparison (OData-URL 5.1.1.16), and yet
// by the grammar (notExpr) an expression may follow it: where what follows is no
// Boolean by itself, the comparison it begins is meant.
func (p *parser) unary() (placed, *Error) {
	if !p.token.keyword("not") {
		return p.primary()
	}
	at := p.token.at
	if err := p.advance(); err != nil {
		return placed{}, err
	}
	if !p.token.spaced && !p.token.is("(") && p.token.kind != tokenEnd {
		return placed{}, p.refuse(BadRequest, "a space is expected after not")
	}
	if err := p.node(); err != nil {
		return placed{}, err
	}
	x, err := p.deeper(p.unary)
	if err != nil {
		return x, err
	}
	if p.needBoolean(x) != nil {
		if x, err = p.compared(x, p.unary, "gt", "ge", "lt", "le"); err == nil && p.needBoolean(x) != nil {
			x, err = p.compared(x, p.relation, "eq", "ne")
		}
		if err != nil {
			return x, err
		}
	}
	if err := p.needBoolean(x); err != nil {
		return x, err
	}
	return placed{&Not{x.Expr}, at}, nil
}

func isNull(x Expr) bool {
	l, ok := x.(*Literal)
	return ok && l.Type == Null
}

func isCollection(x Expr) bool {
	o, ok := x.(*Operand)
	return ok && o.Variable == "" && o.Property.Collection
}

// typeOf names an expression's type.
func typeOf(x Expr) string {
	if isCollection(x) {
		return x.(*Operand).Property.typeName()
	}
	return x.Is().String()
}
