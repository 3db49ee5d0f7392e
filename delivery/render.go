package delivery

import (
	"strconv"
	"unicode/utf8"

	"postroad/event"
)

// Parts of a `reso` body (RESO RCP-28, RESO Common Format).
const (
	resoContext   = `"@reso.context":"urn:reso:metadata:2.0:resource:entityevent"`
	resoSequence  = `"EntityEventSequence":`
	resoResource  = `,"ResourceName":`
	resoKey       = `,"ResourceRecordKey":`
	resoURL       = `,"ResourceRecordUrl":`
	resoSingle    = `{` + resoContext + `,`
	resoBatch     = `{` + resoContext + `,"value":[`
	resoBatchTail = `]}`
	rawNone       = `null`
)

// AppendBody appends the body of a request for events in a format. A batched
// body always holds an array, be it of one event or none; a body that is not
// batched holds exactly one event.
func AppendBody(b []byte, format string, batched bool, events []*event.Event) []byte {
	raw := format == event.FormatRaw
	switch {
	case !batched && raw:
		return appendRaw(b, events[0])
	case !batched:
		return append(appendMembers(append(b, resoSingle...), events[0]), '}')
	case raw:
		b = append(b, '[')
	default:
		b = append(b, resoBatch...)
	}
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		if raw {
			b = appendRaw(b, e)
		} else {
			b = append(appendMembers(append(b, '{'), e), '}')
		}
	}
	if raw {
		return append(b, ']')
	}
	return append(b, resoBatchTail...)
}

func appendRaw(b []byte, e *event.Event) []byte {
	if e.Data == nil {
		return append(b, rawNone...)
	}
	return append(b, e.Data...)
}

func appendMembers(b []byte, e *event.Event) []byte {
	b = strconv.AppendInt(append(b, resoSequence...), e.Sequence, 10)
	b = event.AppendString(append(b, resoResource...), e.ResourceName)
	b = event.AppendString(append(b, resoKey...), e.ResourceRecordKey)
	if e.ResourceRecordURL != "" {
		b = event.AppendString(append(b, resoURL...), e.ResourceRecordURL)
	}
	return b
}

// EnvelopeBytes is what a batched body of one event or more holds beside
// Size of each: EnvelopeBytes plus the sizes is the body's exact length.
func EnvelopeBytes(format string) int {
	if format == event.FormatRaw {
		return len("[]") - len(",")
	}
	return len(resoBatch) + len(resoBatchTail) - len(",")
}

// Size is how many bytes an event adds to a batched body, the comma included.
func Size(format string, e *event.Event) int {
	if format == event.FormatRaw {
		if e.Data == nil {
			return len(rawNone) + 1
		}
		return len(e.Data) + 1
	}
	n := len(`{},`) + len(resoSequence) + len(resoResource) + len(resoKey) +
		digits(e.Sequence) + stringSize(e.ResourceName) + stringSize(e.ResourceRecordKey)
	if e.ResourceRecordURL != "" {
		n += len(resoURL) + stringSize(e.ResourceRecordURL)
	}
	return n
}

func digits(n int64) int {
	var scratch [20]byte
	return len(strconv.AppendInt(scratch[:0], n, 10))
}

// stringSize is the length of what event.AppendString appends.
func stringSize(s string) int {
	n := len(s) + len(`""`)
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				n += len("\ufffd") - 1
			}
			i += size
			continue
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
			n++
		case c < 0x20:
			n += len(`\u0000`) - 1
		}
		i++
	}
	return n
}
