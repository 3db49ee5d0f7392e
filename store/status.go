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
	// LagEvents is how many numbers of the feed the subscriber has not dealt with;
	// a parked one has scanned all. LagSeconds is the age of the oldest event it
	// has not dealt with.
	LagEvents  int64   `json:"lagEvents"`
	LagSeconds float64 `json:"lagSeconds"`
	// RetryAt ends the wait in force.
	RetryAt *time.Time `json:"retryAt,omitempty"`
	// Attempt is how many requests the range in work has had.
	Attempt         int        `json:"attempt"`
	LastError       string     `json:"lastError,omitempty"`
	LastDeliveredAt *time.Time `json:"lastDeliveredAt,omitempty"`
	// InFlight is how many events were in flight at the last checkpoint, or are under
	// a lease.
	InFlight int `json:"inFlight"`
	// HeldKeys is how many keys are set aside, DeadLetters how many events were
	// given up.
	HeldKeys    int `json:"heldKeys"`
	DeadLetters int `json:"deadLetters"`
	// Replay is the first one that is not finished.
	Replay *StatusReplay `json:"replay,omitempty"`
	// Learned is there where something was learned about the consumer.
	Learned *StatusLearned `json:"learned,omitempty"`
	// Pull is there where the consumer fetches.
	Pull        *StatusPull `json:"pull,omitempty"`
	PausedUntil *time.Time  `json:"pausedUntil,omitempty"`
	// DesiredVersion numbers the last control accepted, AppliedVersion the last
	// one in force.
	DesiredVersion int64 `json:"desiredVersion"`
	AppliedVersion int64 `json:"appliedVersion"`
	// Retention is there where the feed's hard age threatens what the subscriber
	// is owed, or took some of it.
	Retention *StatusRetention `json:"retention,omitempty"`
}

// StatusReplay is how far a replay is; members as in Replay.
type StatusReplay struct {
	ID         int64    `json:"id"`
	State      string   `json:"state"`
	Done       int64    `json:"done"`
	Total      int64    `json:"total"`
	Rate       float64  `json:"rate"`
	ETASeconds *float64 `json:"etaSeconds,omitempty"`
}

// StatusLearned is what was learned about a consumer whose batchSize or lanes are
// chosen by Postroad; 0: nothing yet.
type StatusLearned struct {
	BatchSize int `json:"batchSize,omitempty"`
	Lanes     int `json:"lanes,omitempty"`
}

// StatusPull is what is in the hands of a consumer that fetches.
type StatusPull struct {
	// Leases is how many are out, Events how many events they have that are not
	// committed.
	Leases int `json:"leases"`
	Events int `json:"events"`
	// NextOverAt is when the first of them is over.
	NextOverAt *time.Time `json:"nextOverAt,omitempty"`
}

// StatusRetention is what removal at a feed's hard age means for a subscriber.
type StatusRetention struct {
	// RemovedFrom is when the oldest event that it may still be sent, one that is
	// set aside or replayed too, is due to be removed, delivered by then or not.
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

// lowestOwed is the sequence above which the subscriber of alias r may still be
// sent events, NULL: it waits for new ones.
const lowestOwed = `least(CASE WHEN NOT r.parked THEN r.cursor END,
	(SELECT min(h.sequence) - 1 FROM held_events h WHERE h.subscriber = r.id),
	(SELECT min(d.sequence) - 1 FROM dead_letters d WHERE d.subscriber = r.id),
	(SELECT min(p.cursor) FROM replays p WHERE p.subscriber = r.id AND p.` + replayOpen + `))`

// statusQuery reads statuses of the runs that a condition selects.
func statusQuery(condition string) string {
	return `SELECT r.*, f.name, ` + feedHead + `, o.recorded_at, w.recorded_at + f.retention_hard_age_ms * interval '1 millisecond',
			CASE WHEN r.paused THEN (SELECT c.source FROM controls c WHERE c.subscriber = r.id AND c.kind = 'pause' ORDER BY c.version DESC LIMIT 1) END,
			(SELECT count(*) FROM held_keys k WHERE k.subscriber = r.id), (SELECT count(*) FROM dead_letters d WHERE d.subscriber = r.id),
			p.id, p.state, p.done, p.total, p.started_at, l.leases, l.events, l.over_at
		FROM (SELECT ` + runColumns + ` FROM runs WHERE NOT deleted AND ` + condition + `) r
		JOIN feeds f ON f.id = r.feed_id
		LEFT JOIN LATERAL (
			SELECT e.recorded_at FROM events e
			WHERE NOT r.parked AND e.feed_id = r.feed_id AND e.sequence > greatest(r.cursor, f.floor_sequence)
			ORDER BY e.sequence LIMIT 1) o ON true
		LEFT JOIN LATERAL (
			SELECT e.recorded_at FROM (SELECT ` + lowestOwed + ` AS low) m JOIN events e ON e.sequence > greatest(f.floor_sequence, m.low)
			WHERE f.retention_hard_age_ms IS NOT NULL AND m.low IS NOT NULL AND e.feed_id = r.feed_id
			ORDER BY e.sequence LIMIT 1) w ON true
		LEFT JOIN LATERAL (SELECT * FROM replays WHERE subscriber = r.id AND ` + replayOpen + ` ORDER BY id LIMIT 1) p ON true
		LEFT JOIN LATERAL (
			SELECT count(*) AS leases, coalesce(sum(cardinality(sequences)), 0) AS events, min(expires_at) AS over_at FROM pull_leases
			WHERE r.pull AND subscriber = r.id AND expires_at > clock_timestamp()) l ON true
		ORDER BY r.id`
}

func scanStatus(row pgx.CollectableRow) (Status, error) {
	var s Status
	var oldest, removed *time.Time
	var pausedBy, replayState *string
	var replayID, replayDone, replayTotal *int64
	var replayStarted *time.Time
	var out StatusPull
	r, err := scanRun(row, &s.Feed, &s.Head, &oldest, &removed, &pausedBy, &s.HeldKeys, &s.DeadLetters,
		&replayID, &replayState, &replayDone, &replayTotal, &replayStarted,
		&out.Leases, &out.Events, &out.NextOverAt)
	if err != nil {
		return s, err
	}
	r.PausedBy = pausedBy
	if r.Pull {
		s.Pull, r.InFlight = &out, out.Events
	}
	s.fill(&r, oldest)
	if replayID != nil {
		s.fillReplay(Replay{ID: *replayID, State: *replayState, Done: *replayDone, Total: *replayTotal, StartedAt: replayStarted}, r.Now)
	}
	if r.LearnedBatch > 0 || r.LearnedLanes > 0 {
		s.Learned = &StatusLearned{BatchSize: r.LearnedBatch, Lanes: r.LearnedLanes}
	}
	if removed != nil || r.LostEvents > 0 {
		s.Retention = &StatusRetention{RemovedFrom: removed, LostEvents: r.LostEvents, LostThrough: r.LostThrough, LostAt: r.LostAt}
	}
	return s, nil
}

// fillReplay adds an open replay. A subscriber that has one to send is not idle.
func (s *Status) fillReplay(p Replay, now time.Time) {
	p.measure(now)
	s.Replay = &StatusReplay{ID: p.ID, State: p.State, Done: p.Done, Total: p.Total, Rate: p.Rate, ETASeconds: p.ETASeconds}
	if s.State == StateIdle && p.State != ReplayPaused {
		s.State, s.Reason = StateActive, fmt.Sprintf("sending replay %d; %d of %d events done", p.ID, p.Done, p.Total)
	}
}

// fill completes a status whose feed and head are known.
func (s *Status) fill(r *Run, oldest *time.Time) {
	s.Subscriber, s.Cursor = r.ID, r.Cursor
	if !r.Parked {
		s.LagEvents = max(0, s.Head-r.Cursor-countRanges(r.Settled))
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
