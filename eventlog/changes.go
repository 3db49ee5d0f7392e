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

// changedSQL finds what a snapshot could not see: transactions that began after
// it, and those that ran while it was taken. The time an event was recorded at
// would not do, as its transaction commits later.
const changedSQL = `
SELECT pg_current_snapshot()::text, coalesce(c.feed_id, 0), coalesce(c.head, 0)
FROM (SELECT) one LEFT JOIN (
	SELECT n.feed_id, max(n.sequence) AS head FROM (
		SELECT e.feed_id, e.sequence FROM events e WHERE e.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
		UNION ALL
		SELECT e.feed_id, e.sequence FROM events e
		WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
	) n GROUP BY n.feed_id
) c ON true`

// changedSince returns the heads of the feeds that grew since the snapshot, and
// the snapshot this was seen in.
func changedSince(ctx context.Context, pool *pgxpool.Pool, since string) (heads map[int64]int64, snapshot string, err error) {
	rows, _ := pool.Query(ctx, changedSQL, since)
	heads = map[int64]int64{}
	var feed, head int64
	_, err = pgx.ForEachRow(rows, []any{&snapshot, &feed, &head}, func() error {
		if feed != 0 {
			heads[feed] = head
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("look for changed feeds: %w", err)
	}
	return heads, snapshot, nil
}

func currentSnapshot(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	var snapshot string
	if err := pool.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&snapshot); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return snapshot, nil
}

// readHeads reads the heads of the feeds named, or of all.
func readHeads(ctx context.Context, pool *pgxpool.Pool, feeds []int64, all bool) (map[int64]int64, error) {
	if len(feeds) == 0 && !all {
		return nil, nil
	}
	rows, _ := pool.Query(ctx, `
		SELECT f.id, greatest(f.floor_sequence, (SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id))
		FROM feeds f WHERE $2 OR f.id = ANY ($1::bigint[])`, feeds, all)
	heads := map[int64]int64{}
	var feed, head int64
	_, err := pgx.ForEachRow(rows, []any{&feed, &head}, func() error {
		heads[feed] = head
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return heads, nil
}
