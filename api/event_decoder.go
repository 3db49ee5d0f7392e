package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"postroad/event"
)

const (
	// eventsMax is the most events one array may hold.
	eventsMax = 10_000
	// fieldErrorsMax is how many faults one answer names.
	fieldErrorsMax = 20
)

// errTooManyEvents refuses an array by its length.
var errTooManyEvents = errors.New("api: too many events in one array")

// eventTooLargeError refuses one event by its size; pointer is its place.
type eventTooLargeError struct{ pointer string }

func (e *eventTooLargeError) Error() string { return "api: event too large at " + e.pointer }

// malformedError is a body that is not JSON, or not the JSON asked for as a
// whole. The pointer is as near to the place as the parser got.
type malformedError struct {
	pointer string
	detail  string
}

func (e *malformedError) Error() string {
	return "api: malformed JSON at " + e.pointer + ": " + e.detail
}

// syntaxOptions are how every body is read. Names repeated within data are the
// producer's own affair: data is kept as it came, never interpreted.
var syntaxOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(false)}

// eventDecoder reads events from one JSON text that is wholly in memory. Its
// events share the text's memory for data. The zero value is ready; it can be
// reused.
type eventDecoder struct {
	dec      jsontext.Decoder
	source   bytes.Buffer
	text     []byte
	supplied bool
	single   bool // the last body was one event, not an array
	errs     event.FieldErrors
	scratch  []byte
}

func (d *eventDecoder) reset(text []byte, supplied bool) {
	d.text, d.supplied, d.errs = text, supplied, nil
	d.source = *bytes.NewBuffer(text)
	d.dec.Reset(&d.source, syntaxOptions...)
}

// decodeBody reads a request's body: one event or an array of events. The
// error is event.FieldErrors, *malformedError, *eventTooLargeError or
// errTooManyEvents.
func (d *eventDecoder) decodeBody(text []byte, supplied bool) ([]event.Event, error) {
	d.reset(text, supplied)
	var events []event.Event
	var err error
	switch d.dec.PeekKind() {
	case '{':
		d.single = true
		events = make([]event.Event, 1)
		err = d.decodeEvent("", &events[0])
	case '[':
		d.single = false
		events, err = d.decodeArray()
	default:
		// A reading error, or a kind that is none of ours.
		if _, err := d.dec.ReadValue(); err != nil {
			return nil, d.malformed(err)
		}
		return nil, &malformedError{"", "must be one event or an array of events"}
	}
	if err != nil {
		return nil, err
	}
	return events, d.finish()
}

// decodeLine reads one line of NDJSON: exactly one event.
func (d *eventDecoder) decodeLine(text []byte, supplied bool, ev *event.Event) error {
	d.reset(text, supplied)
	if d.dec.PeekKind() != '{' {
		if _, err := d.dec.ReadValue(); err != nil {
			return d.malformed(err)
		}
		return &malformedError{"", "must be one event"}
	}
	if err := d.decodeEvent("", ev); err != nil {
		return err
	}
	return d.finish()
}

// finish checks that nothing follows the value and returns its faults.
func (d *eventDecoder) finish() error {
	if _, err := d.dec.ReadToken(); !errors.Is(err, io.EOF) {
		if err == nil {
			return &malformedError{"", "must not be followed by another value"}
		}
		return d.malformed(err)
	}
	return d.errs.Err()
}

func (d *eventDecoder) decodeArray() ([]event.Event, error) {
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, d.malformed(err)
	}
	// A guess that spares most of the growing, bounded by what may come.
	const bytesPerEvent = 300
	events := make([]event.Event, 0, min(len(d.text)/bytesPerEvent+1, eventsMax))
	last := int64(0)
	for d.dec.PeekKind() != ']' {
		if len(events) == eventsMax {
			return nil, errTooManyEvents
		}
		pointer := "/" + strconv.Itoa(len(events))
		if kind := d.dec.PeekKind(); kind != '{' {
			if err := d.skip(); err != nil {
				return nil, err
			}
			d.fault(pointer, "must be an event, not "+kindName(kind))
			events = append(events, event.Event{})
		} else {
			events = append(events, event.Event{})
			ev := &events[len(events)-1]
			if err := d.decodeEvent(pointer, ev); err != nil {
				return nil, err
			}
			if d.supplied && ev.Sequence > 0 {
				if ev.Sequence <= last {
					d.fault(pointer+"/sequence", fmt.Sprintf("must be above %d, the sequence before it", last))
				}
				last = ev.Sequence
			}
		}
		if len(d.errs) >= fieldErrorsMax {
			return nil, d.errs
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, d.malformed(err)
	}
	if len(events) == 0 {
		d.fault("", "must hold at least one event")
	}
	return events, nil
}

// Members of an event, as bits of what has been seen.
const (
	seenSequence = 1 << iota
	seenResourceName
	seenResourceRecordKey
	seenResourceRecordURL
	seenEventType
	seenFeedTypes
	seenAttributes
	seenRelated
	seenBulk
	seenOccurredAt
	seenRecordedAt
	seenData
	seenIdempotencyKey
	seenErasedAt
)

// eventMember tells a member by its name as it stands in the text, quotes
// included; 0: none of ours.
func eventMember(name []byte) int {
	switch string(name) {
	case `"sequence"`:
		return seenSequence
	case `"resourceName"`:
		return seenResourceName
	case `"resourceRecordKey"`:
		return seenResourceRecordKey
	case `"resourceRecordUrl"`:
		return seenResourceRecordURL
	case `"eventType"`:
		return seenEventType
	case `"feedTypes"`:
		return seenFeedTypes
	case `"attributes"`:
		return seenAttributes
	case `"related"`:
		return seenRelated
	case `"bulk"`:
		return seenBulk
	case `"occurredAt"`:
		return seenOccurredAt
	case `"recordedAt"`:
		return seenRecordedAt
	case `"data"`:
		return seenData
	case `"idempotencyKey"`:
		return seenIdempotencyKey
	case `"erasedAt"`:
		return seenErasedAt
	}
	return 0
}

// decodeEvent reads one object. at is its pointer within the text. Faults are
// noted and reading goes on; only an error ends it.
func (d *eventDecoder) decodeEvent(at string, ev *event.Event) error {
	if _, err := d.dec.ReadToken(); err != nil {
		return d.malformed(err)
	}
	start := d.dec.InputOffset() - 1
	seen := 0
	for d.dec.PeekKind() != '}' {
		raw, err := d.dec.ReadValue()
		if err != nil {
			return d.malformed(err)
		}
		member := eventMember(raw)
		if member == 0 && bytes.IndexByte(raw, '\\') >= 0 {
			member = eventMember(strconv.AppendQuote(nil, d.unquote(raw))) // a name written with escapes
		}
		if member == 0 {
			name := d.unquote(raw)
			if err := d.skip(); err != nil {
				return err
			}
			d.fault(at+"/"+escapePointer(name), "is not a member of an event")
			continue
		}
		if seen&member != 0 {
			name := d.unquote(raw)
			if err := d.skip(); err != nil {
				return err
			}
			d.fault(at+"/"+name, "must not appear twice")
			continue
		}
		seen |= member
		if err := d.decodeMember(at, member, ev); err != nil {
			return err
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return d.malformed(err)
	}
	if d.dec.InputOffset()-start > event.EventBytesMax {
		return &eventTooLargeError{at}
	}
	if ev.ResourceName == "" {
		d.require(at+"/resourceName", seen&seenResourceName != 0)
	}
	if ev.ResourceRecordKey == "" {
		d.require(at+"/resourceRecordKey", seen&seenResourceRecordKey != 0)
	}
	if d.supplied && seen&seenSequence == 0 {
		d.fault(at+"/sequence", "is required: this feed's sequences are supplied by the producer")
	}
	return nil
}

// require notes a required member that is absent or empty, unless a fault of
// its own was noted already.
func (d *eventDecoder) require(pointer string, present bool) {
	for _, e := range d.errs {
		if e.Pointer == pointer {
			return
		}
	}
	if present {
		d.fault(pointer, "must not be empty")
	} else {
		d.fault(pointer, "is required")
	}
}
