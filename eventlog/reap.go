package eventlog

import (
	"context"
	"fmt"
)

// ReapDeleted removes up to max events that lie at or below their feed's floor,
// which no read shows any more, and says how many it removed. Call it again
// while it removed max. One that stops in the middle is gone on with by the next.
func (l *Log) ReapDeleted(ctx context.Context, max int) (int, error) {
	removed := 0
	for removed < max {
		n, found, err := l.reapFeed(ctx, max-removed)
		if err != nil {
			return removed, err
		}
		if !found {
			break
		}
		removed += n
	}
	return removed, nil
}

// reapFeed removes up to max events of one feed; found says that there was one
// with something left to remove.
func (l *Log) reapFeed(ctx context.Context, max int) (removed int, found bool, err error) {
	err = l.pool.QueryRow(ctx, `
		WITH feed AS (
			SELECT id, removed_sequence, floor_sequence FROM feeds
			WHERE removed_sequence < floor_sequence ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
		), doomed AS (
			SELECT e.sequence FROM feed JOIN events e ON e.feed_id = feed.id
				AND e.sequence > feed.removed_sequence AND e.sequence <= feed.floor_sequence
			ORDER BY e.sequence LIMIT $1
		), removed AS (
			DELETE FROM events e USING feed WHERE e.feed_id = feed.id
				AND e.sequence > feed.removed_sequence AND e.sequence <= (SELECT max(sequence) FROM doomed)
			RETURNING 1
		), noted AS (
			UPDATE feeds f SET removed_sequence = CASE
				WHEN (SELECT count(*) FROM doomed) < $1 THEN feed.floor_sequence
				ELSE (SELECT max(sequence) FROM doomed) END
			FROM feed WHERE f.id = feed.id
		)
		SELECT (SELECT count(*) FROM removed), EXISTS (SELECT FROM feed)`, max).Scan(&removed, &found)
	if err != nil {
		return 0, false, fmt.Errorf("remove events below the floor: %w", err)
	}
	return removed, found, nil
}

// ReapKeys removes up to max idempotency keys that no longer count, and says
// how many it removed. Call it again while it removed max.
func (l *Log) ReapKeys(ctx context.Context, max int) (int, error) {
	tag, err := l.pool.Exec(ctx, `
		DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM idempotency_keys WHERE expires_at <= clock_timestamp()
			ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))`, max)
	if err != nil {
		return 0, fmt.Errorf("remove expired idempotency keys: %w", err)
	}
	return int(tag.RowsAffected()), nil
}
