package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// AnnounceParked tells the wakers that a row was parked. It is a statement of
// its own: notifying inside the checkpoint would put PostgreSQL's one
// notification lock around every group of checkpoints. An announcement that is
// lost is made good by the wakers' reload.
func (s *Store) AnnounceParked(ctx context.Context, subscriber string) error {
	if _, err := s.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, ParkedChannel, subscriber); err != nil {
		return fmt.Errorf("announce parked %s: %w", subscriber, err)
	}
	return nil
}

// Unpark ends a parking that lease made, if nothing came between: the same
// lease and generation, the row runnable, no control since version desired, and
// nothing that whoever takes the row has to move first. False: the parking
// stands, or somebody else ended it.
func (s *Store) Unpark(ctx context.Context, subscriber string, lease uuid.UUID, generation, desired int64) (bool, error) {
	tag, err := s.pool.Exec(ctx, `
		UPDATE runs SET parked = false, wake_at = NULL, checked_at = clock_timestamp()
		 WHERE id = $1 AND lease = $2 AND generation = $3 AND parked AND desired_version = $4 AND moves = 0 AND `+runnable,
		subscriber, lease, generation, desired)
	if err != nil {
		return false, fmt.Errorf("unpark %s: %w", subscriber, err)
	}
	return tag.RowsAffected() == 1, nil
}

// ParkedRow is what a waker needs to know of a parked subscriber.
type ParkedRow struct {
	ID     string
	FeedID int64
	Filter event.Filter
	// Cursor is the position up to which nothing is left to match; some events
	// below it may have to be sent again yet, at a time of their own.
	Cursor int64
	// Generation is the parking's number, which a wake must carry.
	Generation int64
	// Version is the last control accepted: a filter is known under it.
	Version int64
}

const parkedRows = `
	SELECT r.id, r.feed_id, coalesce(s.config -> 'filter', '{}'), greatest(r.cursor, r.scanned), r.generation, r.desired_version
	  FROM runs r JOIN subscribers s ON s.id = r.id
	 WHERE r.parked AND NOT r.deleted`

// ParkedRows returns parked rows with an id above afterID, in order of id, at
// most limit of them.
func (s *Store) ParkedRows(ctx context.Context, afterID string, limit int) ([]ParkedRow, error) {
	return collect(ctx, s, "list parked rows", scanParked, parkedRows+` AND r.id > $1 ORDER BY r.id LIMIT $2`, afterID, limit)
}

// ParkedRow returns one row if it is parked; false: it is not.
func (s *Store) ParkedRow(ctx context.Context, id string) (ParkedRow, bool, error) {
	rows, err := s.pool.Query(ctx, parkedRows+` AND r.id = $1`, id)
	if err != nil {
		return ParkedRow{}, false, fmt.Errorf("read parked row %s: %w", id, err)
	}
	row, err := pgx.CollectExactlyOneRow(rows, scanParked)
	if errors.Is(err, pgx.ErrNoRows) {
		return ParkedRow{}, false, nil
	}
	if err != nil {
		return ParkedRow{}, false, fmt.Errorf("read parked row %s: %w", id, err)
	}
	return row, true, nil
}

func scanParked(row pgx.CollectableRow) (ParkedRow, error) {
	var p ParkedRow
	err := row.Scan(&p.ID, &p.FeedID, &p.Filter, &p.Cursor, &p.Generation, &p.Version)
	return p, err
}

// CursorMove moves the position of a parked row past events that do not match:
// its cursor or, where events below wait for their next attempt, scanned.
type CursorMove struct {
	ID         string
	Generation int64
	// Version is the ParkedRow's: a filter that changed since voids the move.
	Version int64
	Cursor  int64
}

// MoveParkedCursors moves the cursors of rows that are still parked as the
// caller knows them, and returns how many moved. It passes over rows that
// somebody has locked, so that it never holds other rows, which a run may want
// to take, while it waits for one.
func (s *Store) MoveParkedCursors(ctx context.Context, moves []CursorMove) (int64, error) {
	ids, generations := make([]string, len(moves)), make([]int64, len(moves))
	versions, cursors := make([]int64, len(moves)), make([]int64, len(moves))
	for i, m := range moves {
		ids[i], generations[i], versions[i], cursors[i] = m.ID, m.Generation, m.Version, m.Cursor
	}
	tag, err := s.pool.Exec(ctx, `
		WITH c AS (
		    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS c (id, generation, version, cursor)
		), locked AS MATERIALIZED (
		    SELECT r.id FROM runs r JOIN c ON c.id = r.id ORDER BY r.id FOR UPDATE OF r SKIP LOCKED
		)
		UPDATE runs r SET
		    cursor  = CASE WHEN r.scanned > r.cursor THEN r.cursor ELSE c.cursor END,
		    scanned = CASE WHEN r.scanned > r.cursor THEN c.cursor ELSE r.scanned END,
		    settled = CASE WHEN r.scanned <= r.cursor THEN r.settled
		                   WHEN r.settled[cardinality(r.settled)] = r.scanned THEN r.settled[:cardinality(r.settled) - 1] || c.cursor
		                   ELSE r.settled || ARRAY[r.scanned + 1, c.cursor] END
		  FROM c JOIN locked USING (id)
		 WHERE r.id = c.id AND r.parked AND r.generation = c.generation AND r.desired_version = c.version
		   AND greatest(r.cursor, r.scanned) < c.cursor`,
		ids, generations, versions, cursors)
	if err != nil {
		return 0, fmt.Errorf("move parked cursors: %w", err)
	}
	return tag.RowsAffected(), nil
}

// SweepRows returns subscribers that nobody has looked at for that long, though
// they should be delivering, have a control that is not in force, or are fetched
// from and held all the same: whoever held
// them died, and their workflow may have been lost with it. Of the parked ones only
// those are among them that should have been woken by now, or have to be moved. At
// most limit, the longest neglected first.
func (s *Store) SweepRows(ctx context.Context, unchecked time.Duration, limit int) ([]string, error) {
	return collect(ctx, s, "list neglected rows", pgx.RowTo[string], `
		SELECT id FROM runs
		 WHERE NOT deleted AND checked_at < clock_timestamp() - $1::interval
		   AND CASE WHEN parked THEN moves > 0 OR `+runnable+` AND coalesce(wake_at < clock_timestamp() - $1::interval, false)
		       ELSE desired_version > applied_version OR moves > 0 OR pull AND lease IS NOT NULL
		        OR `+runnable+`
		           AND (not_before IS NULL OR not_before < clock_timestamp() - $1::interval)
		           AND (paused_until IS NULL OR paused_until < clock_timestamp() - $1::interval) END
		 ORDER BY checked_at LIMIT $2`, unchecked, limit)
}

// Tombstones returns deleted subscribers whose rows still stand, at most limit.
func (s *Store) Tombstones(ctx context.Context, limit int) ([]string, error) {
	return collect(ctx, s, "list tombstones", pgx.RowTo[string],
		`SELECT id FROM runs WHERE deleted ORDER BY id LIMIT $1`, limit)
}
