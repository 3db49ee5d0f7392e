package odata

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is what a token of an expression is.
type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	// tokenWord is an identifier, a keyword or a qualified name.
	tokenWord
	// tokenLiteral is a number, a date and time, or what begins like one.
	tokenLiteral
	// tokenString is a string literal; its text is what the literal stands for.
	tokenString
	// tokenSign is one of ( ) , / : and the like; its text is that character.
	tokenSign
)

// token is one token of an expression.
type token struct {
	kind tokenKind
	text string
	// at is where the token begins, end where it ends, in bytes.
	at, end int
	// spaced: white space stands before it.
	spaced bool
}

// is reports whether the token is that sign.
func (t token) is(sign string) bool { return t.kind == tokenSign && t.text == sign }

// keyword reports whether the token is that word. OData 4.01 has operators and
// functions in any case (OData-URL 5.1.1.1).
func (t token) keyword(word string) bool {
	return t.kind == tokenWord && len(t.text) == len(word) && strings.EqualFold(t.text, word)
}

// lexer cuts an expression into tokens (OData-ABNF 4, 6, 7). It works on the
// decoded value of a query option, in which the grammar's percent-encoded forms
// are the characters themselves.
type lexer struct {
	target string
	text   string
	at     int
}

// fail is a refusal of what stands at an offset.
func (l *lexer) fail(kind Kind, at int, format string, args ...any) *Error {
	err := refuse(kind, l.target, format, args...)
	err.Position = character(l.text, at)
	return err
}

// next returns the next token.
func (l *lexer) next() (token, *Error) {
	start := l.at
	for l.at < len(l.text) && (l.text[l.at] == ' ' || l.text[l.at] == '\t') {
		l.at++
	}
	t := token{at: l.at, spaced: l.at > start}
	if l.at == len(l.text) {
		t.end = l.at
		return t, nil
	}
	var err *Error
	switch c := l.text[l.at]; {
	case c == '\'':
		t.kind = tokenString
		t.text, err = l.quoted()
	case isDigit(c), c == '-' && l.at+1 < len(l.text) && isDigit(l.text[l.at+1]), isGUID(l.text[l.at:]):
		t.kind, t.text = tokenLiteral, l.run()
	case strings.HasPrefix(l.text[l.at:], "-INF"):
		t.kind, t.text = tokenLiteral, "-INF"
		l.at += len(t.text)
	case strings.IndexByte("(),/:-*$@[]{}\"", c) >= 0:
		t.kind, t.text = tokenSign, l.text[l.at:l.at+1]
		l.at++
	default:
		t.kind = tokenWord
		t.text, err = l.word()
	}
	t.end = l.at
	return t, err
}

// quoted reads a string literal: two quotes in a row are one in it.
func (l *lexer) quoted() (string, *Error) {
	start := l.at
	var b strings.Builder
	for l.at++; l.at < len(l.text); l.at++ {
		c := l.text[l.at]
		if c != '\'' {
			b.WriteByte(c)
			continue
		}
		if l.at+1 < len(l.text) && l.text[l.at+1] == '\'' {
			l.at++
			b.WriteByte('\'')
			continue
		}
		l.at++
		return b.String(), nil
	}
	return "", l.fail(BadRequest, start, "the string that begins here has no closing quote")
}

// run reads what belongs to a number, a date and time or a GUID. The sign before
// the hours of a time zone is a raw '+' in many URLs, which decodes to a space: it
// is a plus again where only that makes sense.
func (l *lexer) run() string {
	start := l.at
	for l.at < len(l.text) && (isWordByte(l.text[l.at]) || strings.IndexByte("-+:.", l.text[l.at]) >= 0) {
		l.at++
	}
	text := l.text[start:l.at]
	zone := l.text[l.at:]
	if len(zone) >= len(" 00:00") && zone[0] == ' ' && isDigit(zone[1]) && isDigit(zone[2]) && zone[3] == ':' &&
		isDigit(zone[4]) && isDigit(zone[5]) && isLocalTime(text) {
		l.at += len(" 00:00")
		return text + "+" + zone[1:len(" 00:00")]
	}
	return text
}

// word reads an identifier; dots join the parts of a qualified name.
func (l *lexer) word() (string, *Error) {
	start := l.at
	for l.at < len(l.text) {
		r, size := utf8.DecodeRuneInString(l.text[l.at:])
		first := l.at == start
		if r != '_' && !unicode.IsLetter(r) && !unicode.Is(unicode.Nl, r) &&
			(first || r != '.' && !unicode.In(r, unicode.Nd, unicode.Mn, unicode.Mc, unicode.Pc, unicode.Cf)) {
			break
		}
		l.at += size
	}
	if l.at == start {
		r, _ := utf8.DecodeRuneInString(l.text[start:])
		return "", l.fail(BadRequest, start, "the character %q is not expected here", r)
	}
	return l.text[start:l.at], nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWordByte(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
}

// isGUID reports whether a text begins with a GUID, which may begin like a word.
func isGUID(text string) bool {
	const form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
	if len(text) < len(form) {
		return false
	}
	for i := range len(form) {
		c := text[i]
		if form[i] == '-' && c != '-' || form[i] == 'x' && !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}
