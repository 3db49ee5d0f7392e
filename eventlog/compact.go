package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// compactable is a feed with events that are old enough to be compacted.
type compactable struct {
	id    int64
	name  string
	after int64 // milliseconds
}

// compactRows bounds how many events one step looks at: it finds all events of each
// of their records, and whoever wants to make a subscriber waits for it.
const compactRows = 2_000

// Compact goes on compacting feeds, each by up to most events that it looks at
// and 2,000 in any case, and says how many it removed and whether there are more to look at. Then call it
// again. What it could not do for one feed keeps it from no other.
func (l *Log) Compact(ctx context.Context, most int) (removed int, more bool, err error) {
	const pageMax = 1_000
	most = min(most, compactRows)
	var failed []error
	for after := int64(0); ; {
		rows, _ := l.pool.Query(ctx, `
			SELECT f.id, f.name, f.compact_after_ms FROM feeds f CROSS JOIN LATERAL (
				SELECT e.recorded_at FROM events e WHERE e.feed_id = f.id AND e.sequence > greatest(f.floor_sequence, f.compacted_through)
				ORDER BY e.sequence LIMIT 1) next
			WHERE f.id > $1 AND f.deleted_at IS NULL AND f.compact_after_ms IS NOT NULL
				AND next.recorded_at < clock_timestamp() - f.compact_after_ms * interval '1 millisecond'
			ORDER BY f.id LIMIT $2`, after, pageMax)
		due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (compactable, error) {
			var c compactable
			return c, row.Scan(&c.id, &c.name, &c.after)
		})
		if err != nil {
			return removed, more, errors.Join(append(failed, fmt.Errorf("list feeds to compact: %w", err))...)
		}
		for _, c := range due {
			after = c.id
			looked, gone, err := l.compact(ctx, c, most)
			if err != nil {
				failed = append(failed, fmt.Errorf("compact feed %s: %w", c.name, err))
			}
			removed += gone
			more = more || looked == most
		}
		if len(due) < pageMax || ctx.Err() != nil {
			return removed, more, errors.Join(failed...)
		}
	}
}

// compactSQL looks at the next events of a feed and removes those that a newer one
// of the same record among them stands for, and those of the same records that
// stand before them: of what was compacted earlier there is one of each record.
// $1 is the feed, $2 its floor, ($3, $4] where to look, $5 at how many, $6 the age
// in milliseconds. Times rise with the numbers, so the old ones come first.
const compactSQL = `
	WITH looked AS MATERIALIZED (
		SELECT n.sequence, n.resource_name, n.resource_key FROM (
			SELECT e.sequence, e.resource_name, e.resource_key, e.recorded_at FROM events e
			WHERE e.feed_id = $1 AND e.sequence > $3 AND e.sequence <= $4 ORDER BY e.sequence LIMIT $5) n
		WHERE n.recorded_at < clock_timestamp() - $6::bigint * interval '1 millisecond'
	), newest AS MATERIALIZED (
		SELECT resource_name, resource_key, max(sequence) AS sequence FROM looked GROUP BY resource_name, resource_key
	), removed AS (
		DELETE FROM events e WHERE e.feed_id = $1 AND e.sequence = ANY (ARRAY(
			SELECT older.sequence FROM newest n CROSS JOIN LATERAL record_sequences($1, n.resource_name, n.resource_key) AS older (sequence)
			WHERE older.sequence > $2 AND older.sequence < n.sequence))
		RETURNING 1
	), noted AS (
		UPDATE feeds SET compacted_through = (SELECT max(sequence) FROM looked) WHERE id = $1 AND EXISTS (SELECT FROM looked)
	)
	SELECT (SELECT count(*) FROM looked), (SELECT count(*) FROM removed)`

// compact makes one step in one feed. Its row is locked, so that no subscriber can
// begin or go back to where events go meanwhile; appends do not wait for it. What
// goes is settled for every subscriber, and so memory may still hold it: nobody
// has to be told.
func (l *Log) compact(ctx context.Context, c compactable, most int) (looked, removed int, err error) {
	err = pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
			return err
		}
		var floor, from int64
		err := tx.QueryRow(ctx, `
			SELECT floor_sequence, greatest(floor_sequence, compacted_through) FROM feeds
			WHERE id = $1 AND deleted_at IS NULL AND compact_after_ms = $2 FOR NO KEY UPDATE`, c.id, c.after).Scan(&floor, &from)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // changed meanwhile: the next round goes by what it is now
		}
		if err != nil {
			return fmt.Errorf("lock feed: %w", err)
		}
		low, err := lowWaterOf(ctx, tx, c.id)
		if err != nil || low <= from {
			return err
		}
		return tx.QueryRow(ctx, compactSQL, c.id, floor, from, low, most, c.after).Scan(&looked, &removed)
	})
	if err != nil {
		return 0, 0, err
	}
	return looked, removed, nil
}
