package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// lookTimeout bounds one look of the tail, so that a vanished host is noticed.
const lookTimeout = 10 * time.Second

// mark is what is known of a feed's state beside its events.
type mark struct {
	// head is the highest number; -1: not known to have changed.
	head int64
	// floor: events at or below it are no longer kept.
	floor int64
	// erasures is how often events of the feed were erased.
	erasures int64
}

// changedSQL finds what a snapshot could not see: transactions that began after
// it, and those that ran while it was taken. The time an event was recorded at
// would not do, as its transaction commits later.
const changedSQL = `
SELECT pg_current_snapshot()::text, coalesce(c.feed_id, 0), coalesce(c.head, 0), coalesce(c.floor, 0), coalesce(c.erasures, 0)
FROM (SELECT) one LEFT JOIN (
	SELECT n.feed_id, max(n.head) AS head, max(n.floor) AS floor, max(n.erasures) AS erasures FROM (
		SELECT e.feed_id, e.sequence AS head, 0::bigint AS floor, 0::bigint AS erasures
		FROM events e WHERE e.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
		UNION ALL
		SELECT e.feed_id, e.sequence, 0, 0 FROM events e
		WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
		UNION ALL
		SELECT f.id, -1, f.floor_sequence, f.erasures FROM feeds f
		WHERE f.changed >= pg_snapshot_xmax($1::text::pg_snapshot)
		UNION ALL
		SELECT f.id, -1, f.floor_sequence, f.erasures FROM feeds f
		WHERE f.changed = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
	) n GROUP BY n.feed_id
) c ON true`

// changedSince returns the marks of the feeds that changed since the snapshot,
// and the snapshot this was seen in. Of a feed that only grew, floor and erasures
// are 0. In the same round trip, and after the marks, it reads early.
func changedSince(ctx context.Context, pool *pgxpool.Pool, since string, early *reading) (marks map[int64]mark, snapshot string, err error) {
	var batch pgx.Batch
	batch.Queue(changedSQL, since)
	if len(early.feeds) > 0 {
		batch.Queue(aboveSQL, early.arguments()...)
	}
	results := pool.SendBatch(ctx, &batch)
	defer results.Close()
	marks, snapshot, err = changedIn(results)
	if err == nil && len(early.feeds) > 0 {
		rows, _ := results.Query()
		err = early.scan(rows)
	}
	return marks, snapshot, err
}

func changedIn(results pgx.BatchResults) (marks map[int64]mark, snapshot string, err error) {
	rows, _ := results.Query()
	marks = map[int64]mark{}
	var feed int64
	var m mark
	_, err = pgx.ForEachRow(rows, []any{&snapshot, &feed, &m.head, &m.floor, &m.erasures}, func() error {
		if feed != 0 {
			marks[feed] = m
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("look for changed feeds: %w", err)
	}
	return marks, snapshot, nil
}

func currentSnapshot(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	var snapshot string
	if err := pool.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&snapshot); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return snapshot, nil
}

// readMarks reads the marks of the feeds named, or of all.
func readMarks(ctx context.Context, pool *pgxpool.Pool, feeds []int64, all bool) (map[int64]mark, error) {
	if len(feeds) == 0 && !all {
		return nil, nil
	}
	rows, _ := pool.Query(ctx, `
		SELECT f.id, greatest(f.floor_sequence, (SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id)),
			f.floor_sequence, f.erasures
		FROM feeds f WHERE $2 OR f.id = ANY ($1::bigint[])`, feeds, all)
	marks := map[int64]mark{}
	var feed int64
	var m mark
	_, err := pgx.ForEachRow(rows, []any{&feed, &m.head, &m.floor, &m.erasures}, func() error {
		marks[feed] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return marks, nil
}
