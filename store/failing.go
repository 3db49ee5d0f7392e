package store

import (
	"fmt"
	"time"
)

// storedFailing is a FailingEvent in the column failing: what it still has to
// wait is as of failing_at, by PostgreSQL's clock.
type storedFailing struct {
	Sequence         int64 `json:"sequence"`
	Attempts         int   `json:"attempts"`
	WaitMicroseconds int64 `json:"wait_us"`
	Proven           bool  `json:"proven"`
}

// failingText is the column failing; nil: NULL, there are none.
func failingText(events []FailingEvent) *string {
	if len(events) == 0 {
		return nil
	}
	text := []byte("[")
	for i, e := range events {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `{"sequence":%d,"attempts":%d,"wait_us":%d,"proven":%t}`,
			e.Sequence, e.Attempts, max(0, e.Wait.Microseconds()), e.Proven)
	}
	return new(string(append(text, ']')))
}

// failingEvents are the columns failing and failing_at at a later time. Those up
// to the cursor are no longer failing: the release before moved it past them.
func failingEvents(cursor int64, stored []storedFailing, at *time.Time, now time.Time) []FailingEvent {
	var passed time.Duration
	if at != nil {
		passed = now.Sub(*at)
	}
	var events []FailingEvent
	for _, e := range stored {
		if e.Sequence > cursor {
			wait := max(0, time.Duration(e.WaitMicroseconds)*time.Microsecond-passed)
			events = append(events, FailingEvent{Sequence: e.Sequence, Attempts: e.Attempts, Wait: wait, Proven: e.Proven})
		}
	}
	return events
}
