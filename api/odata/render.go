package odata

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Renderer writes entities as JSON (OData-JSON 4 to 13). Control information has
// its names of 4.0, which 4.01 reads as well.
type Renderer struct {
	Type *EntityType
	// Root is the service root as the client called it, with a slash at its end.
	Root   string
	Format Format
	// Select are the properties to show; nil: all.
	Select []*Property
}

// context is the context URL (OData-Protocol 10), below the service root.
func (r *Renderer) context(suffix string) string {
	text := r.Root + "$metadata#" + r.Type.Name
	if r.Select != nil {
		names := make([]string, len(r.Select))
		for i, p := range r.Select {
			names[i] = p.Name
		}
		text += "(" + strings.Join(names, ",") + ")"
	}
	return text + suffix
}

// AppendEntity appends an answer that is one entity (OData-JSON 6).
func (r *Renderer) AppendEntity(b []byte, row Row) []byte {
	b = append(b, '{')
	if r.Format.Metadata != NoMetadata {
		b = appendMember(b, "@odata.context")
		b = appendString(b, r.context("/$entity"))
	}
	return append(r.appendProperties(b, row), '}')
}

// AppendHead appends the beginning of an answer that is a page of entities
// (OData-JSON 13), up to where the first one stands: the context first and the
// count before the entities, so that a page can be written as it is read. count is
// negative where none was asked for.
func (r *Renderer) AppendHead(b []byte, count int64) []byte {
	b = append(b, '{')
	if r.Format.Metadata != NoMetadata {
		b = appendMember(b, "@odata.context")
		b = appendString(b, r.context(""))
	}
	if count >= 0 {
		b = appendMember(b, "@odata.count")
		b = r.appendInt64(b, count)
	}
	return append(appendMember(b, "value"), '[')
}

// AppendRow appends an entity of a page; first: it is the page's first.
func (r *Renderer) AppendRow(b []byte, row Row, first bool) []byte {
	if !first {
		b = append(b, ',')
	}
	return append(r.appendProperties(append(b, '{'), row), '}')
}

// AppendTail appends the end of a page. nextLink is empty on the last one.
func (r *Renderer) AppendTail(b []byte, nextLink string) []byte {
	b = append(b, ']')
	if nextLink != "" {
		b = appendMember(b, "@odata.nextLink")
		b = appendString(b, nextLink)
	}
	return append(b, '}')
}

func (r *Renderer) appendProperties(b []byte, row Row) []byte {
	properties, full := r.Type.Properties, r.Format.Metadata == FullMetadata
	if r.Select != nil {
		properties = r.Select
	}
	key := r.Type.Property(r.Type.Key)
	keyShown := false
	for _, p := range properties {
		keyShown = keyShown || p == key
	}
	if full {
		b = appendMember(b, "@odata.type")
		b = appendString(b, "#"+r.Type.Namespace+"."+r.Type.Name)
	}
	// The id is left out where a client can make it up (OData-JSON 4.6.8).
	if full || !keyShown && r.Format.Metadata == MinimalMetadata {
		number, _ := row(key).(int64)
		link := r.Type.Name + "(" + strconv.FormatInt(number, 10) + ")"
		b = appendMember(b, "@odata.id")
		b = appendString(b, link)
		if full {
			b = appendMember(b, "@odata.readLink")
			b = appendString(b, link)
		}
	}
	for _, p := range properties {
		// Types that JSON does not show (OData-JSON 4.6.3).
		if full && (p.Collection || p.Type != String) {
			b = appendMember(b, p.Name+"@odata.type")
			b = appendString(b, "#"+strings.Replace(p.typeName(), "Edm.", "", 1))
		}
		b = appendMember(b, p.Name)
		b = r.appendValue(b, row(p))
	}
	return b
}

func (r *Renderer) appendValue(b []byte, value any) []byte {
	switch value := value.(type) {
	case int64:
		return r.appendInt64(b, value)
	case string:
		return appendString(b, value)
	case time.Time:
		b = append(b, '"')
		b = value.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
		return append(b, '"')
	case []string:
		b = append(b, '[')
		for i, text := range value {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, text)
		}
		return append(b, ']')
	}
	return append(b, "null"...)
}

// appendInt64 appends a number, as a string where the client asked for that: beyond
// 53 bits JavaScript rounds (OData-JSON 3.2).
func (r *Renderer) appendInt64(b []byte, n int64) []byte {
	if !r.Format.IEEE754Compatible {
		return strconv.AppendInt(b, n, 10)
	}
	return append(strconv.AppendInt(append(b, '"'), n, 10), '"')
}

// appendMember appends a member's name, and a comma where it is not the first.
func appendMember(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendString(b, name), ':')
}

func appendString(b []byte, text string) []byte {
	plain := true
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(b, '"'), text...), '"')
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(text) != nil { // strings always encode
		return append(b, `""`...)
	}
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// ServiceDocument is the document at the service root (OData-JSON 5): its one
// entity set.
func ServiceDocument(t *EntityType, root string, f Format) []byte {
	b := []byte{'{'}
	if f.Metadata != NoMetadata {
		b = appendMember(b, "@odata.context")
		b = appendString(b, root+"$metadata")
	}
	b = append(appendMember(b, "value"), '[', '{')
	for _, member := range [][2]string{{"name", t.Name}, {"kind", "EntitySet"}, {"url", t.Name}} {
		b = appendMember(b, member[0])
		b = appendString(b, member[1])
	}
	return append(b, "}]}"...)
}

// ErrorBody is the body of an answer that is a refusal (OData-Protocol 9.4, OData-JSON 21.1):
// of an *Error, or with the code and message given for any other one.
func ErrorBody(err error, code, message string) []byte {
	target := ""
	var refusal *Error
	if errors.As(err, &refusal) {
		code, message, target = refusal.Kind.Code(), sentence(refusal.Error()), refusal.Target
	}
	b := appendMember([]byte{'{'}, "error")
	b = appendMember(append(b, '{'), "code")
	b = appendString(b, code)
	b = appendMember(b, "message")
	b = appendString(b, message)
	if target != "" {
		b = appendMember(b, "target")
		b = appendString(b, target)
	}
	return append(b, "}}"...)
}

// sentence makes a detail a sentence.
func sentence(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
