package api

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"postroad/event"
)

// decodeMember reads the value of one member of an event.
func (d *eventDecoder) decodeMember(at string, member int, ev *event.Event) error {
	var err error
	switch member {
	case seenSequence:
		err = d.readSequence(at, ev)
	case seenResourceName:
		ev.ResourceName, _, err = d.readString(at, "/resourceName", event.NameCharactersMax)
	case seenResourceRecordKey:
		ev.ResourceRecordKey, _, err = d.readString(at, "/resourceRecordKey", event.NameCharactersMax)
	case seenResourceRecordURL:
		ev.ResourceRecordURL, _, err = d.readString(at, "/resourceRecordUrl", event.URLCharactersMax)
	case seenEventType:
		ev.EventType, _, err = d.readString(at, "/eventType", event.NameCharactersMax)
	case seenFeedTypes:
		ev.FeedTypes, err = d.readList(at+"/feedTypes", event.FeedTypesMax, event.NameCharactersMax)
	case seenAttributes:
		ev.Attributes, err = d.readAttributes(at + "/attributes")
	case seenRelated:
		ev.Related, err = d.readList(at+"/related", event.RelatedMax, event.URLCharactersMax)
	case seenBulk:
		ev.Bulk, err = d.readBool(at + "/bulk")
	case seenOccurredAt:
		err = d.readOccurredAt(at, ev)
	case seenRecordedAt, seenErasedAt:
		// Set by the log; taken and dropped, so that an event as it was read
		// from one feed can be published to another.
		err = d.skip()
	case seenData:
		err = d.readData(at, ev)
	case seenIdempotencyKey:
		err = d.readIdempotencyKey(at, ev)
	}
	return err
}

func (d *eventDecoder) readSequence(at string, ev *event.Event) error {
	kind := d.dec.PeekKind()
	raw, err := d.dec.ReadValue()
	if err != nil {
		return d.malformed(err)
	}
	pointer := at + "/sequence"
	switch {
	case kind == 'n':
		if d.supplied {
			d.fault(pointer, "is required: this feed's sequences are supplied by the producer")
		}
	case !d.supplied:
		d.fault(pointer, "must be left out: this feed assigns its sequences")
	case kind != '0':
		d.fault(pointer, "must be a number, not "+kindName(kind))
	default:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || n < 1 {
			d.fault(pointer, "must be a whole number from 1 to 9223372036854775807")
			return nil
		}
		ev.Sequence = n
	}
	return nil
}

func (d *eventDecoder) readBool(pointer string) (bool, error) {
	kind := d.dec.PeekKind()
	if err := d.skip(); err != nil {
		return false, err
	}
	if kind != 't' && kind != 'f' && kind != 'n' {
		d.fault(pointer, "must be true or false, not "+kindName(kind))
	}
	return kind == 't', nil
}

func (d *eventDecoder) readOccurredAt(at string, ev *event.Event) error {
	s, ok, err := d.readString(at, "/occurredAt", event.NameCharactersMax)
	if err != nil || !ok {
		return err
	}
	if !validRFC3339(s) {
		d.fault(at+"/occurredAt", "must be an RFC 3339 time such as 2026-03-01T09:30:00Z")
		return nil
	}
	ev.OccurredAt = s
	return nil
}

func (d *eventDecoder) readIdempotencyKey(at string, ev *event.Event) error {
	s, ok, err := d.readString(at, "/idempotencyKey", event.NameCharactersMax)
	switch {
	case err != nil || !ok:
		return err
	case s == "":
		d.fault(at+"/idempotencyKey", "must not be empty")
	case len(s) > event.NameCharactersMax:
		d.fault(at+"/idempotencyKey", fmt.Sprintf("must not be longer than %d bytes", event.NameCharactersMax))
	}
	ev.IdempotencyKey = s
	return nil
}

// readData takes a value as it stands, white space and spelling of numbers
// included.
func (d *eventDecoder) readData(at string, ev *event.Event) error {
	raw, err := d.dec.ReadValue()
	if err != nil {
		return d.malformed(err)
	}
	if hasEscapedNUL(raw) {
		d.fault(at+"/data", "must not contain NUL (\\u0000) in a string")
		return nil
	}
	end := d.dec.InputOffset()
	start := end - int64(len(raw))
	ev.Data = d.text[start:end:end]
	return nil
}

// readString reads a string of up to charactersMax characters. ok is false
// where it was null or faulty; faults are noted under at+member.
func (d *eventDecoder) readString(at, member string, charactersMax int) (s string, ok bool, err error) {
	kind := d.dec.PeekKind()
	raw, err := d.dec.ReadValue()
	if err != nil {
		return "", false, d.malformed(err)
	}
	if kind != '"' {
		if kind != 'n' {
			d.fault(at+member, "must be a string, not "+kindName(kind))
		}
		return "", false, nil
	}
	s = d.unquote(raw)
	switch {
	case len(s) > charactersMax && utf8.RuneCountInString(s) > charactersMax:
		d.fault(at+member, fmt.Sprintf("must not be longer than %d characters", charactersMax))
		return "", false, nil
	case hasEscapedNUL(raw):
		d.fault(at+member, "must not contain NUL (\\u0000)")
		return "", false, nil
	}
	return s, true, nil
}

func (d *eventDecoder) readList(pointer string, entriesMax, charactersMax int) ([]string, error) {
	if kind := d.dec.PeekKind(); kind != '[' {
		return nil, d.skipOptional(pointer, "an array of strings", kind)
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, d.malformed(err)
	}
	var list []string
	n := 0
	for ; d.dec.PeekKind() != ']'; n++ {
		if n >= entriesMax {
			if err := d.skip(); err != nil {
				return nil, err
			}
			continue
		}
		at := pointer + "/" + strconv.Itoa(n)
		kind := d.dec.PeekKind()
		s, ok, err := d.readString(at, "", charactersMax)
		if err != nil {
			return nil, err
		}
		if ok && s == "" {
			d.fault(at, "must not be empty")
		} else if kind == 'n' {
			d.fault(at, "must be a string, not null")
		}
		list = append(list, s)
	}
	if n > entriesMax {
		d.fault(pointer, fmt.Sprintf("must not have more than %d entries", entriesMax))
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, d.malformed(err)
	}
	return list, nil
}

func (d *eventDecoder) readAttributes(pointer string) (map[string]string, error) {
	if kind := d.dec.PeekKind(); kind != '{' {
		return nil, d.skipOptional(pointer, "an object of strings", kind)
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, d.malformed(err)
	}
	attributes := map[string]string{}
	for d.dec.PeekKind() != '}' {
		raw, err := d.dec.ReadValue()
		if err != nil {
			return nil, d.malformed(err)
		}
		name := d.unquote(raw)
		at := pointer + "/" + escapePointer(name)
		switch _, twice := attributes[name]; {
		case twice:
			d.fault(at, "must not appear twice")
		case name == "" || utf8.RuneCountInString(name) > event.NameCharactersMax || hasEscapedNUL(raw):
			d.fault(pointer, fmt.Sprintf("must have names of 1-%d characters without NUL", event.NameCharactersMax))
		}
		kind := d.dec.PeekKind()
		value, _, err := d.readString(at, "", event.EventBytesMax)
		if err != nil {
			return nil, err
		}
		if kind == 'n' {
			d.fault(at, "must be a string, not null")
		}
		if len(attributes) <= event.AttributesMax {
			attributes[name] = value
		}
	}
	if len(attributes) > event.AttributesMax {
		d.fault(pointer, fmt.Sprintf("must not have more than %d entries", event.AttributesMax))
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, d.malformed(err)
	}
	if len(attributes) == 0 {
		return nil, nil
	}
	return attributes, nil
}

// skipOptional passes over a value of another kind than wanted; null is the
// same as absent.
func (d *eventDecoder) skipOptional(pointer, want string, kind jsontext.Kind) error {
	if err := d.skip(); err != nil {
		return err
	}
	if kind != 'n' {
		d.fault(pointer, "must be "+want+", not "+kindName(kind))
	}
	return nil
}

func (d *eventDecoder) skip() error {
	if _, err := d.dec.ReadValue(); err != nil {
		return d.malformed(err)
	}
	return nil
}

func (d *eventDecoder) fault(pointer, detail string) {
	if len(d.errs) < fieldErrorsMax {
		d.errs.Add(pointer, detail)
	}
}

// unquote decodes a JSON string that the parser has accepted.
func (d *eventDecoder) unquote(raw []byte) string {
	if len(raw) >= 2 && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	d.scratch, _ = jsontext.AppendUnquote(d.scratch[:0], raw)
	return string(d.scratch)
}
