package eventlog

import (
	"context"
	"errors"

	"postroad/event"
)

// Selection is a part of a feed that is gone through from its beginning to its
// end, for which new events are of no concern.
type Selection struct {
	// After and Through: the events in (After, Through]. Through is at most the
	// head.
	After, Through int64
	// Filter lets events pass.
	Filter event.Filter
	// Keys are the records whose events are wanted; nil: those of all.
	Keys []event.Key
}

// Selected goes through a selection, in order, from the database. It is for one
// goroutine at a time.
type Selected struct {
	log *Log
}

// Select goes through a selection. It does not wait for PostgreSQL. The caller
// closes what it returns.
func (l *Log) Select(feedID int64, s Selection) *Selected { return &Selected{log: l} }

// Next returns the next events, up to maxEvents of them and maxBytes
// (event.Event.Size) but one always, and the position up to which all was looked
// at: Through once there are no more. The position may move without events.
// Errors: ErrNotFound, *BelowFloorError; after any error the position is where it
// was.
func (s *Selected) Next(ctx context.Context, maxEvents, maxBytes int) (events []*event.Event, scanned int64, err error) {
	return nil, 0, errors.ErrUnsupported
}

// Erased reports that some of the events that Next returned may have been erased
// since, as Follower.Erased does.
func (s *Selected) Erased() bool { return false }

// Close lets go of the feed. It must not run beside Next.
func (s *Selected) Close() {}

// Count counts the events of a selection, exactly, and returns the lowest and the
// highest number among them. It looks at each event between the bounds, or at
// each of the records named: ten million take seconds. Errors: ErrNotFound,
// *BelowFloorError.
func (l *Log) Count(ctx context.Context, feedID int64, s Selection) (total, first, last int64, err error) {
	return 0, 0, 0, errors.ErrUnsupported
}

// Events reads events by their numbers, which rise: those that are still there,
// in order. The caller bounds how many it asks for, as all are brought.
func (l *Log) Events(ctx context.Context, feedID int64, sequences []int64) ([]*event.Event, error) {
	return nil, errors.ErrUnsupported
}
