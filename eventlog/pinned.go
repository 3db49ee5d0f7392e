package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pinned is a feed that keeps events beyond its age, because a subscriber is
// still owed them.
type Pinned struct {
	FeedID int64
	Feed   string
	// Subscriber is the one with the lowest low-water mark, Low, Cursor its
	// position. Low is below it where events up to it are set aside or sent again.
	Subscriber  string
	Low, Cursor int64
	// OldestSequence is the oldest event that is kept, recorded at OldestAt; it
	// would have been removed at Since.
	OldestSequence int64
	OldestAt       time.Time
	Since          time.Time
	// For is how long ago Since is, by PostgreSQL's clock. The position of a
	// subscriber that is parked may be behind by a minute: what is pinned for a
	// few minutes only need not be told of.
	For time.Duration
}

// Pinned lists feeds that a subscriber has kept from being shortened for
// longer than least, the longest first, at most limit.
func (l *Log) Pinned(ctx context.Context, least time.Duration, limit int) ([]Pinned, error) {
	rows, _ := l.pool.Query(ctx, `
		SELECT f.id, f.name, behind.id, behind.low, behind.cursor, oldest.sequence, oldest.recorded_at, due.at, clock_timestamp() - due.at
		FROM feeds f CROSS JOIN LATERAL (
			SELECT e.sequence, e.recorded_at FROM events e WHERE e.feed_id = f.id AND e.sequence > f.floor_sequence
			ORDER BY e.sequence LIMIT 1
		) oldest CROSS JOIN LATERAL (
			SELECT oldest.recorded_at + f.retention_age_ms * interval '1 millisecond' AS at
		) due CROSS JOIN LATERAL (
			SELECT r.id, r.cursor, m.low FROM subscribers s JOIN runs r ON r.id = s.id CROSS JOIN LATERAL (SELECT `+lowWater+` AS low) m
			WHERE s.feed_id = f.id AND NOT r.deleted AND m.low < oldest.sequence
			ORDER BY m.low, r.id LIMIT 1
		) behind
		WHERE f.retention_age_ms IS NOT NULL AND f.deleted_at IS NULL AND due.at < clock_timestamp() - $1::interval
		ORDER BY due.at LIMIT $2`, least, limit)
	pinned, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Pinned, error) {
		var p Pinned
		err := row.Scan(&p.FeedID, &p.Feed, &p.Subscriber, &p.Low, &p.Cursor, &p.OldestSequence, &p.OldestAt, &p.Since, &p.For)
		p.OldestAt, p.Since = p.OldestAt.UTC(), p.Since.UTC()
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list feeds that are held back: %w", err)
	}
	return pinned, nil
}
