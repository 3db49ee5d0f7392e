package event

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the event as the API writes it, in one line unless data
// itself has line breaks: data stands in it byte for byte as it was sent,
// which encoding/json would compact and escape.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"sequence":`...)
	b = strconv.AppendInt(b, e.Sequence, 10)
	b = AppendString(append(b, `,"resourceName":`...), e.ResourceName)
	b = AppendString(append(b, `,"resourceRecordKey":`...), e.ResourceRecordKey)
	b = appendOptional(b, `,"resourceRecordUrl":`, e.ResourceRecordURL)
	b = appendOptional(b, `,"eventType":`, e.EventType)
	b = appendList(b, `,"feedTypes":`, e.FeedTypes)
	if len(e.Attributes) > 0 {
		names := make([]string, 0, len(e.Attributes))
		for name := range e.Attributes {
			names = append(names, name)
		}
		slices.Sort(names)
		b = append(b, `,"attributes":{`...)
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(AppendString(b, name), ':')
			b = AppendString(b, e.Attributes[name])
		}
		b = append(b, '}')
	}
	b = appendList(b, `,"related":`, e.Related)
	if e.Bulk {
		b = append(b, `,"bulk":true`...)
	}
	b = appendOptional(b, `,"occurredAt":`, e.OccurredAt)
	b = append(b, `,"recordedAt":"`...)
	b = e.RecordedAt.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.Data != nil {
		b = append(append(b, `,"data":`...), e.Data...)
	}
	if !e.ErasedAt.IsZero() {
		b = append(b, `,"erasedAt":"`...)
		b = append(e.ErasedAt.UTC().AppendFormat(b, time.RFC3339Nano), '"')
	}
	return append(b, '}')
}

func appendOptional(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return AppendString(append(b, name...), s)
}

func appendList(b []byte, name string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(append(b, name...), '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, s)
	}
	return append(b, ']')
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string (RFC 8259), escaping only what must
// be escaped; invalid UTF-8 becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
