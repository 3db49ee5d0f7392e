package eventlog

import (
	"context"
	"encoding/json"
	"fmt"

	"postroad/event"
)

// Result says where the events of one Append are in the log.
type Result struct {
	// First and Last are the lowest and highest of Sequences.
	First, Last int64
	// Accepted is how many events were newly stored, Duplicates how many the log
	// had before.
	Accepted, Duplicates int
	// Sequences holds the number of each event, in the order of the request.
	Sequences []int64
}

// Append stores events in a feed, all or none, in their order, and returns
// after they are committed. They are stored together with those of other
// callers, but none fails another.
//
// Errors: *SequenceError and *ConflictError (the request is at fault),
// *DataError, ErrNotFound and ErrFeedChanged (the feed was deleted, or made
// again), *BusyError, ErrUnavailable, ErrClosed (nothing was stored, worth
// another try), ErrUnknownOutcome (stored or not; safe to send again only with
// idempotency keys or supplied sequences). Where ctx ends first its error is
// returned, together with ErrUnknownOutcome if the events were already on
// their way.
//
// The events must not be changed until Append returns, and for ever where it
// returned because ctx ended.
func (l *Log) Append(ctx context.Context, feed Feed, events []event.Event) (Result, error) {
	if len(events) == 0 {
		return Result{}, nil
	}
	supplied := feed.Sequences == SequencesSupplied
	if err := checkSequences(events, supplied); err != nil {
		return Result{}, err
	}
	r, err := newRequest(groupKey{feed.ID, supplied}, events)
	if err != nil {
		return Result{}, err
	}
	result, err := l.appender.append(ctx, r)
	if err != nil {
		return Result{}, fmt.Errorf("append to feed %s: %w", feed.Name, err)
	}
	return result, nil
}

// checkSequences checks what can be known without the log: numbers are there
// where the producer supplies them, and rise.
func checkSequences(events []event.Event, supplied bool) error {
	previous := int64(0)
	for i := range events {
		s := events[i].Sequence
		switch {
		case !supplied && s != 0:
			return &SequenceError{i, "this feed numbers its events itself: leave sequence out"}
		case !supplied:
		case s == 0:
			return &SequenceError{i, "this feed's producer numbers the events: sequence is required"}
		case s < 0:
			return &SequenceError{i, "sequence must be 1 or more"}
		case s <= previous:
			return &SequenceError{i, fmt.Sprintf("sequence must rise within a request: %d follows %d", s, previous)}
		}
		previous = s
	}
	return nil
}

// groupKey is what the events of one group have in common.
type groupKey struct {
	feed     int64
	supplied bool
}

// request is one Append on its way through the queue.
type request struct {
	key    groupKey
	events []event.Event
	// hashes and extras are nil where no event has a key, or rare members; they
	// are made by the publisher's goroutine to keep the writers free.
	hashes [][]byte
	extras [][]byte
	bytes  int
	answer chan answer // of capacity 1
	state  requestState
}

type answer struct {
	result Result
	err    error
}

func newRequest(key groupKey, events []event.Event) (*request, error) {
	r := &request{key: key, events: events, answer: make(chan answer, 1)}
	for i := range events {
		e := &events[i]
		r.bytes += e.Size()
		if e.IdempotencyKey != "" {
			if r.hashes == nil {
				r.hashes = make([][]byte, len(events))
			}
			sum := e.ContentHash()
			r.hashes[i] = sum[:]
		}
		extras, err := encodeExtras(e)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		if extras != nil {
			if r.extras == nil {
				r.extras = make([][]byte, len(events))
			}
			r.extras[i] = extras
		}
	}
	return r, nil
}

// hash is the hash of the content of the i-th event; nil: it has no key.
func (r *request) hash(i int) []byte {
	if r.hashes == nil {
		return nil
	}
	return r.hashes[i]
}

// rare are the rare members of the i-th event; nil: it has none.
func (r *request) rare(i int) []byte {
	if r.extras == nil {
		return nil
	}
	return r.extras[i]
}

// extras are the rare members of an event as they stand in the column extras.
type extras struct {
	FeedTypes  []string          `json:"feedTypes,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Related    []string          `json:"related,omitempty"`
	Bulk       bool              `json:"bulk,omitempty"`
	// Trace is the event's trace context. No read of the API shows it.
	Trace string `json:"trace,omitempty"`
}

func encodeExtras(e *event.Event) ([]byte, error) {
	if len(e.FeedTypes) == 0 && len(e.Attributes) == 0 && len(e.Related) == 0 && !e.Bulk && e.Trace == "" {
		return nil, nil
	}
	b, err := json.Marshal(extras{e.FeedTypes, e.Attributes, e.Related, e.Bulk, e.Trace})
	if err != nil {
		return nil, fmt.Errorf("encode rare members: %w", err)
	}
	return b, nil
}

func decodeExtras(s string, e *event.Event) error {
	var x extras
	if err := json.Unmarshal([]byte(s), &x); err != nil {
		return fmt.Errorf("decode rare members of event %d: %w", e.Sequence, err)
	}
	e.FeedTypes, e.Attributes, e.Related, e.Bulk, e.Trace = x.FeedTypes, x.Attributes, x.Related, x.Bulk, x.Trace
	return nil
}
