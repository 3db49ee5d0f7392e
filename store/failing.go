package store

import (
	"encoding/json"
	"time"
)

// storedFailing is a FailingEvent in the column failing: what it still has to
// wait is as of failing_at, by PostgreSQL's clock.
type storedFailing struct {
	Sequence         int64 `json:"sequence"`
	Attempts         int   `json:"attempts"`
	WaitMicroseconds int64 `json:"wait_us"`
	Proven           bool  `json:"proven,omitempty"`
}

// failingText is the column failing; nil: NULL, there are none.
func failingText(events []FailingEvent) *string {
	if len(events) == 0 {
		return nil
	}
	stored := make([]storedFailing, len(events))
	for i, e := range events {
		stored[i] = storedFailing{e.Sequence, e.Attempts, max(0, e.Wait.Microseconds()), e.Proven}
	}
	text, err := json.Marshal(stored)
	if err != nil {
		panic(err) // numbers and booleans
	}
	column := string(text)
	return &column
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
