package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Status is how a subscriber fares, as far as the database knows.
type Status struct {
	// Subscriber is its id, Feed its feed's name.
	Subscriber string `json:"subscriber"`
	Feed       string `json:"feed"`
	// State is one of the States, Reason one exact sentence about it.
	State  string `json:"state"`
	Reason string `json:"reason"`
	// Cursor: every matching event up to it is settled. Head is the feed's last
	// event.
	Cursor int64 `json:"cursor"`
	Head   int64 `json:"head"`
	// LagEvents is how many numbers of the feed the subscriber has not scanned;
	// a parked one has scanned all. LagSeconds is the age of the oldest event it
	// has not scanned.
	LagEvents  int64   `json:"lagEvents"`
	LagSeconds float64 `json:"lagSeconds"`
	// RetryAt ends the wait in force.
	RetryAt *time.Time `json:"retryAt,omitempty"`
	// Attempt is how many requests the range in work has had.
	Attempt         int        `json:"attempt"`
	LastError       string     `json:"lastError,omitempty"`
	LastDeliveredAt *time.Time `json:"lastDeliveredAt,omitempty"`
	// InFlight is how many events were in flight at the last checkpoint.
	InFlight    int        `json:"inFlight"`
	HeldKeys    int        `json:"heldKeys"`
	DeadLetters int        `json:"deadLetters"`
	PausedUntil *time.Time `json:"pausedUntil,omitempty"`
	// DesiredVersion numbers the last control accepted, AppliedVersion the last
	// one in force.
	DesiredVersion int64 `json:"desiredVersion"`
	AppliedVersion int64 `json:"appliedVersion"`
	// Retention is there where the feed's hard age threatens what the subscriber
	// is owed, or took some of it.
	Retention *StatusRetention `json:"retention,omitempty"`
}

// StatusRetention is what removal at a feed's hard age means for a subscriber.
type StatusRetention struct {
	// RemovedFrom is when the oldest event that it has not scanned is due to be
	// removed, whether it is delivered by then or not.
	RemovedFrom *time.Time `json:"removedFrom,omitempty"`
	// LostEvents is how many matching events were removed before they were
	// settled, the last one LostThrough, as noted at LostAt. Some that a worker
	// had read already may have been delivered all the same.
	LostEvents  int64      `json:"lostEvents"`
	LostThrough int64      `json:"lostThrough,omitempty"`
	LostAt      *time.Time `json:"lostAt,omitempty"`
}

// feedHead is the last sequence of the feed of alias f.
const feedHead = `greatest(f.floor_sequence, coalesce((SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id), 0))`

// statusQuery reads statuses of the runs that a condition selects; the cursor
// is the position scanned, as checkpoints move it past what does not match.
func statusQuery(condition string) string {
	return `SELECT r.*, f.name, ` + feedHead + `, o.recorded_at, o.recorded_at + f.retention_hard_age_ms * interval '1 millisecond',
			CASE WHEN r.paused THEN (SELECT c.source FROM controls c WHERE c.subscriber = r.id AND c.kind = 'pause' ORDER BY c.version DESC LIMIT 1) END
		FROM (SELECT ` + runColumns + ` FROM runs WHERE NOT deleted AND ` + condition + `) r
		JOIN feeds f ON f.id = r.feed_id
		LEFT JOIN LATERAL (
			SELECT e.recorded_at FROM events e
			WHERE NOT r.parked AND e.feed_id = r.feed_id AND e.sequence > greatest(r.cursor, f.floor_sequence)
			ORDER BY e.sequence LIMIT 1) o ON true
		ORDER BY r.id`
}

func scanStatus(row pgx.CollectableRow) (Status, error) {
	var s Status
	var oldest, removed *time.Time
	var pausedBy *string
	r, err := scanRun(row, &s.Feed, &s.Head, &oldest, &removed, &pausedBy)
	if err != nil {
		return s, err
	}
	r.PausedBy = pausedBy
	s.fill(&r, oldest)
	if removed != nil || r.LostEvents > 0 {
		s.Retention = &StatusRetention{RemovedFrom: removed, LostEvents: r.LostEvents, LostThrough: r.LostThrough, LostAt: r.LostAt}
	}
	return s, nil
}

// fill completes a status whose feed and head are known.
func (s *Status) fill(r *Run, oldest *time.Time) {
	s.Subscriber, s.Cursor = r.ID, r.Cursor
	if !r.Parked {
		s.LagEvents = max(0, s.Head-r.Cursor)
		if oldest != nil {
			s.LagSeconds = max(0, r.Now.Sub(*oldest).Seconds())
		}
	}
	s.State, s.Reason = describe(r, s.LagEvents, true)
	if r.Remaining() > 0 {
		s.RetryAt = r.NotBefore
	}
	if r.PausedNow() {
		s.PausedUntil = r.PausedUntil
	}
	s.Attempt, s.LastError, s.LastDeliveredAt, s.InFlight = r.RangeAttempt, text(r.LastError), r.LastDeliveredAt, r.InFlight
	s.DesiredVersion, s.AppliedVersion = r.DesiredVersion, r.AppliedVersion
}

// Status reads how a subscriber fares. Errors: ErrNotFound.
func (s *Store) Status(ctx context.Context, id string) (Status, error) {
	rows, err := s.pool.Query(ctx, statusQuery(`id = $1`), id)
	if err != nil {
		return Status{}, fmt.Errorf("read status of %s: %w", id, err)
	}
	status, err := pgx.CollectExactlyOneRow(rows, scanStatus)
	if errors.Is(err, pgx.ErrNoRows) {
		return Status{}, ErrNotFound
	}
	if err != nil {
		return Status{}, fmt.Errorf("read status of %s: %w", id, err)
	}
	return status, nil
}

// Statuses reads how the subscribers with an id above after fare, in order of
// id, at most limit and never more than SubscribersMax of them.
func (s *Store) Statuses(ctx context.Context, after string, limit int) ([]Status, error) {
	return collect(ctx, s, "read statuses", scanStatus,
		statusQuery(`id > $1 ORDER BY id LIMIT $2`), after, clampLimit(limit, SubscribersMax))
}
