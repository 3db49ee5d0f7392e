package store

import (
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Classes of a wait: the values of wait_class.
const (
	// WaitAsked: the consumer asked for it (Retry-After on 429 or 503). Only
	// resume ends it.
	WaitAsked = "asked"
	// WaitEndpoint: the endpoint fails; a change of endpoint, auth or format
	// ends it too.
	WaitEndpoint = "endpoint"
	// WaitRecord: one event is refused; ended like WaitEndpoint.
	WaitRecord = "record"
)

// Run is the narrow row of a subscriber: holds, versions, lease and position.
// Fields are named after the columns; a nil pointer is NULL.
type Run struct {
	ID     string
	FeedID int64

	Paused       bool
	PausedUntil  *time.Time
	PauseReason  *string
	HaltedReason *string // set: halted
	Disabled     bool
	Deleted      bool // a tombstone

	DesiredVersion int64 // the last control accepted
	AppliedVersion int64 // the last control in force

	Lease      *uuid.UUID
	Parked     bool
	Generation int64

	Cursor           int64
	Settled          []int64
	PreviousSequence int64

	NotBefore    *time.Time
	WaitReason   *string
	WaitClass    *string // WaitAsked, WaitEndpoint, WaitRecord
	FailingSince *time.Time
	Failures     int // failures in a row: the schedule's step
	Asked        int // 429 and 503 with Retry-After in a row
	EventAttempt int // requests charged to the first unsettled event
	RangeFirst   int64
	RangeLast    int64
	RangeAttempt int // requests sent for the range
	Probe        bool
	BatchLimit   int // 0: none

	InFlight        int
	LastError       *string
	LastDeliveredAt *time.Time
	CheckedAt       time.Time

	// Now is PostgreSQL's clock when the row was read.
	Now time.Time
}

// runColumns are the columns that scanRun reads, in its order, of runs
// under the alias r.
const runColumns = `r.id, r.feed_id, r.paused, r.paused_until, r.pause_reason, r.halted_reason, r.disabled, r.deleted,
	r.desired_version, r.applied_version, r.lease, r.parked, r.generation, r.cursor, r.settled, r.previous_sequence,
	r.not_before, r.wait_reason, r.wait_class, r.failing_since, r.failures, r.asked, r.event_attempt,
	r.range_first, r.range_last, r.range_attempt, r.probe, r.batch_limit,
	r.in_flight, r.last_error, r.last_delivered_at, r.checked_at, clock_timestamp()`

// fields are where runColumns go, in their order.
func (r *Run) fields() []any {
	return []any{
		&r.ID, &r.FeedID, &r.Paused, &r.PausedUntil, &r.PauseReason, &r.HaltedReason, &r.Disabled, &r.Deleted,
		&r.DesiredVersion, &r.AppliedVersion, &r.Lease, &r.Parked, &r.Generation, &r.Cursor, &r.Settled, &r.PreviousSequence,
		&r.NotBefore, &r.WaitReason, &r.WaitClass, &r.FailingSince, &r.Failures, &r.Asked, &r.EventAttempt,
		&r.RangeFirst, &r.RangeLast, &r.RangeAttempt, &r.Probe, &r.BatchLimit,
		&r.InFlight, &r.LastError, &r.LastDeliveredAt, &r.CheckedAt, &r.Now,
	}
}

// scanRun reads a row of runColumns, and more columns into the given places.
func scanRun(row pgx.Row, more ...any) (Run, error) {
	var r Run
	err := row.Scan(append(r.fields(), more...)...)
	return r, err
}

// Remaining is how long the wait in force lasts, 0 when none is.
func (r *Run) Remaining() time.Duration { return remaining(r.NotBefore, r.Now) }

// PauseRemaining is how long a pause with an end lasts, 0 when there is none.
func (r *Run) PauseRemaining() time.Duration {
	if !r.Paused {
		return 0
	}
	return remaining(r.PausedUntil, r.Now)
}

func remaining(until *time.Time, now time.Time) time.Duration {
	if until == nil {
		return 0
	}
	return max(0, until.Sub(now))
}
