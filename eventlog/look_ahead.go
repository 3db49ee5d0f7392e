package eventlog

import (
	"context"
	"errors"

	"postroad/event"
)

// Newest says of a stretch of a feed which events are the newest of their record
// in it.
type Newest struct {
	// Through is where the stretch ends.
	Through int64
}

// Keep reports whether an event of the stretch is the newest of its record in it,
// and for how many older ones that the filter lets pass it stands there. What lies
// outside the stretch is kept, and stands for none.
func (n *Newest) Keep(sequence int64) (older int, ok bool) { return 0, true }

// LookAhead looks at up to most events above after, by their names only, and
// remembers which are the newest of their records among those that the filter
// lets pass. Errors: ErrNotFound, *BelowFloorError.
func (l *Log) LookAhead(ctx context.Context, feedID, after int64, filter event.Filter, most int) (*Newest, error) {
	return nil, errors.ErrUnsupported
}
