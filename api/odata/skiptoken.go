package odata

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"
)

// Page is where a page of an answer stands, and what all pages of it have in
// common (server-driven paging, OData-Protocol 11.2.6.7).
type Page struct {
	// Head is the last event there was when the first page was read: the pages
	// together show the collection as it was then.
	Head int64
	// Size is the most entities of a page, at least 1.
	Size int64
	// Served is how many entities the pages before showed.
	Served int64
	// Total is the number that $count asks for, counted with the first page; -1:
	// it was not counted.
	Total int64
	// Last are the values of the order's keys of the last entity shown, or looked
	// at; nil: this is the first page.
	Last []any
}

// FirstPage is the first page of an answer. preferred is the client's PageSize, 0
// none; usual and most are the service's own sizes.
func FirstPage(head, preferred, usual, most int64) Page {
	if preferred <= 0 {
		preferred = usual
	}
	return Page{Head: head, Size: min(preferred, most), Total: -1}
}

// Limit is how many entities the page shows at most. One more is to be read, to
// know whether a page follows.
func (p Page) Limit(q *Query) int64 { return max(0, min(p.Size, q.Top-p.Served)) }

// Next is the page after this one, which showed that many entities and got as far
// as one with those values. A page may show fewer than its limit and even none, as
// where a filter lets little of what was looked at pass. ok is false where $top is
// reached: no link follows, although there may be more entities.
func (p Page) Next(q *Query, shown int, last []any) (next Page, ok bool) {
	p.Served += int64(shown)
	p.Last = last
	return p, p.Served < q.Top
}

// Tokens makes and reads the tokens of $skiptoken, by which a client comes to the
// next page. A token carries its page and is authenticated together with the
// query options and the scope it was made for: it is good for no others.
type Tokens struct{ key []byte }

// NewTokens returns tokens of a key, which all processes of a service share.
func NewTokens(key []byte) *Tokens { return &Tokens{slices.Clone(key)} }

const (
	tokenVersion   = 1
	tokenMAC       = 16        // bytes
	tokenLengthMax = 100 << 10 // characters; a URL as a key is 8,000 characters of up to four bytes
)

// How the value of a key is written.
const (
	keyNull = iota
	keyInteger
	keyString
	keyTime
)

// Make returns the token of a page that is not the first. scope names what the
// query was asked of, a feed and its epoch, say.
func (k *Tokens) Make(q *Query, scope string, p Page) string {
	body := []byte{tokenVersion}
	for _, n := range []int64{p.Head, p.Size, p.Served, p.Total} {
		body = binary.AppendVarint(body, n)
	}
	for _, value := range p.Last {
		switch value := value.(type) {
		case int64:
			body = binary.AppendVarint(append(body, keyInteger), value)
		case string:
			body = binary.AppendUvarint(append(body, keyString), uint64(len(value)))
			body = append(body, value...)
		case time.Time:
			body = binary.AppendVarint(append(body, keyTime), value.UnixMicro())
		default:
			body = append(body, keyNull)
		}
	}
	return base64.RawURLEncoding.EncodeToString(append(body, k.mac(q, scope, body)...))
}

// mac authenticates a token's body, the query options and the scope.
func (k *Tokens) mac(q *Query, scope string, body []byte) []byte {
	h := hmac.New(sha256.New, k.key)
	write := func(text string) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		h.Write(length[:])
		h.Write([]byte(text))
	}
	write(scope)
	for _, name := range slices.Sorted(maps.Keys(q.options)) {
		write(name)
		write(q.options[name])
	}
	write(string(body))
	return h.Sum(nil)[:tokenMAC]
}

// Page reads the query's token. Errors: *Error.
func (k *Tokens) Page(q *Query, scope string) (Page, error) {
	wrong := refuse(BadRequest, "$skiptoken", "is none that this service made for these query options: follow the next link as it is")
	if len(q.Token) > tokenLengthMax {
		return Page{}, wrong
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(q.Token)
	if err != nil || len(raw) < 1+tokenMAC || raw[0] != tokenVersion {
		return Page{}, wrong
	}
	body, mac := raw[:len(raw)-tokenMAC], raw[len(raw)-tokenMAC:]
	if !hmac.Equal(mac, k.mac(q, scope, body)) {
		return Page{}, wrong
	}
	r := tokenReader{rest: body[1:], ok: true}
	p := Page{Head: r.integer(), Size: r.integer(), Served: r.integer(), Total: r.integer()}
	for _, key := range q.Order {
		p.Last = append(p.Last, r.value(key.Property))
	}
	if !r.ok || len(r.rest) > 0 || p.Size < 1 || p.Served < 0 || p.Head < 0 {
		return Page{}, wrong
	}
	return p, nil
}

// tokenReader reads a token's body; ok is false once something did not fit.
type tokenReader struct {
	rest []byte
	ok   bool
}

func (r *tokenReader) integer() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.ok = false
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// value reads the value of a key, which must be of the property's type.
func (r *tokenReader) value(p *Property) any {
	if len(r.rest) == 0 {
		r.ok = false
		return nil
	}
	kind := r.rest[0]
	r.rest = r.rest[1:]
	switch {
	case kind == keyNull && p.Nullable:
		return nil
	case kind == keyInteger && p.Type == Int64:
		return r.integer()
	case kind == keyTime && p.Type == DateTimeOffset:
		return time.UnixMicro(r.integer()).UTC()
	case kind == keyString && p.Type == String:
		n, size := binary.Uvarint(r.rest)
		if size <= 0 || n > uint64(len(r.rest)-size) {
			break
		}
		text := string(r.rest[size : size+int(n)])
		r.rest = r.rest[size+int(n):]
		return text
	}
	r.ok = false
	return nil
}

// NextLink is the link to a further page of the entity set, below the service
// root, which ends with a slash: the query options as they came, but for the token.
func (q *Query) NextLink(root string, t *EntityType, token string) string {
	var b strings.Builder
	b.WriteString(root + t.Name + "?")
	for part := range strings.SplitSeq(q.raw, "&") {
		rawName, _, _ := strings.Cut(part, "=")
		name, _ := decode(rawName, true)
		if part == "" || strings.EqualFold(strings.TrimPrefix(name, "$"), "skiptoken") {
			continue
		}
		for i := range len(part) {
			if c := part[i]; isWordByte(c) || strings.IndexByte("-.~%!$'()*+,;=:@/?", c) >= 0 {
				b.WriteByte(c)
			} else {
				b.WriteString(encode(part[i : i+1]))
			}
		}
		b.WriteByte('&')
	}
	b.WriteString("$skiptoken=" + token)
	return b.String()
}
