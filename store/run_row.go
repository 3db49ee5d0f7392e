package store

import (
	"context"
	"errors"
	"fmt"
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
	Pull         bool // its consumer fetches: nobody delivers, and the row is never parked

	DesiredVersion int64 // the last control accepted
	AppliedVersion int64 // the last control in force

	Lease      *uuid.UUID
	Parked     bool
	Generation int64

	// Cursor: every matching event up to it is dealt with. Settled are ranges of
	// what is dealt with above it, up to Scanned; 0: nothing above it was looked at.
	Cursor           int64
	Settled          []int64
	Scanned          int64
	PreviousSequence int64
	// FailingEvents are refused events above the cursor; Wait is as of Now.
	FailingEvents []FailingEvent
	// StartSequence: the first event owed is the first above it; nil: not known.
	StartSequence *int64
	// Moves is how many controls that move the position, or what is set aside,
	// have to be applied yet.
	Moves int
	// WakeAt is when a parked row has something to do that no event tells of.
	WakeAt *time.Time
	// HaltedEvent is the event at which the subscriber halted, HaltedReplay the
	// replay that it was sent for; 0: none.
	HaltedEvent, HaltedReplay int64
	// LearnedBatch and LearnedLanes are what was learned about the consumer; 0:
	// nothing yet.
	LearnedBatch, LearnedLanes int

	NotBefore    *time.Time
	WaitReason   *string // what was wrong, e.g. "HTTP 429 from the consumer"
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

	LostEvents  int64 // matching events removed at the feed's hard age before they were settled
	LostThrough int64 // the last one of them
	LostAt      *time.Time

	// PausedBy is the source of the pause, where it was read together with the
	// row: it is no column of it.
	PausedBy *string
	// Now is PostgreSQL's clock when the row was read.
	Now time.Time

	// refused is FailingEvents as it is stored, as of refusedAt.
	refused   []storedFailing
	refusedAt *time.Time
}

// runColumns are the columns that scanRun reads, in its order. A query that
// joins more tables selects them from a subquery over runs.
const runColumns = `id, feed_id, paused, paused_until, pause_reason, halted_reason, disabled, deleted, pull,
	desired_version, applied_version, lease, parked, generation, cursor, settled, previous_sequence,
	not_before, wait_reason, wait_class, failing_since, failures, asked, event_attempt,
	range_first, range_last, range_attempt, probe, batch_limit,
	in_flight, last_error, last_delivered_at, checked_at, lost_events, lost_through, lost_at,
	scanned, failing, failing_at, start_sequence, moves, wake_at, coalesce(halted_event, 0) AS halted_event,
	coalesce(halted_replay, 0) AS halted_replay, learned_batch, learned_lanes, clock_timestamp() AS now`

// scanTargets are where runColumns go, in their order.
func (r *Run) scanTargets() []any {
	return []any{
		&r.ID, &r.FeedID, &r.Paused, &r.PausedUntil, &r.PauseReason, &r.HaltedReason, &r.Disabled, &r.Deleted, &r.Pull,
		&r.DesiredVersion, &r.AppliedVersion, &r.Lease, &r.Parked, &r.Generation, &r.Cursor, &r.Settled, &r.PreviousSequence,
		&r.NotBefore, &r.WaitReason, &r.WaitClass, &r.FailingSince, &r.Failures, &r.Asked, &r.EventAttempt,
		&r.RangeFirst, &r.RangeLast, &r.RangeAttempt, &r.Probe, &r.BatchLimit,
		&r.InFlight, &r.LastError, &r.LastDeliveredAt, &r.CheckedAt, &r.LostEvents, &r.LostThrough, &r.LostAt,
		&r.Scanned, &r.refused, &r.refusedAt, &r.StartSequence, &r.Moves, &r.WakeAt, &r.HaltedEvent,
		&r.HaltedReplay, &r.LearnedBatch, &r.LearnedLanes, &r.Now,
	}
}

// scanRun reads a row of runColumns, and more columns into the given places.
func scanRun(row pgx.Row, more ...any) (Run, error) {
	var r Run
	err := row.Scan(append(r.scanTargets(), more...)...)
	r.Settled = rangesAbove(r.Settled, r.Cursor)
	r.FailingEvents = failingEvents(r.Cursor, r.refused, r.refusedAt, r.Now)
	return r, err
}

// Run reads the narrow row of a subscriber, of a tombstone too.
func (s *Store) Run(ctx context.Context, id string) (Run, error) { return readRun(ctx, s.pool, id) }

// readRun is Run, in a transaction too.
func readRun(ctx context.Context, q querier, id string) (Run, error) {
	rows, err := q.Query(ctx, `SELECT `+runColumns+` FROM runs WHERE id = $1`, id)
	if err != nil {
		return Run{}, fmt.Errorf("read run of %s: %w", id, err)
	}
	run, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Run, error) { return scanRun(row) })
	if errors.Is(err, pgx.ErrNoRows) {
		return Run{}, ErrNotFound
	}
	if err != nil {
		return Run{}, fmt.Errorf("read run of %s: %w", id, err)
	}
	return run, nil
}

// Runnable reports whether the subscriber may send: nobody holds it back, it is
// not fetched from, and no wait is in force.
func (r *Run) Runnable() bool {
	return !r.Deleted && !r.Pull && !r.Disabled && r.HaltedReason == nil && !r.PausedNow() && r.Remaining() == 0
}

// PausedNow reports whether a pause is in force: one whose end has come is not.
func (r *Run) PausedNow() bool {
	return r.Paused && (r.PausedUntil == nil || r.PausedUntil.After(r.Now))
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
