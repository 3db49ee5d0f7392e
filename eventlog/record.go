package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

const (
	// fewOfRecord is how many events of a record the index of records is asked
	// for. It knows no order, so that a record with more of them is looked for in
	// the feed itself, backwards: what is frequent is soon found.
	fewOfRecord = 2_000
	// lookedForRecord is how many events of the feed one call then looks at.
	lookedForRecord = 50_000
)

// RecordPage is a stretch of a record's events, the newest first.
type RecordPage struct {
	Events []*event.Event
	// Before goes on: the events of the record below it were not looked at; 0:
	// there are none.
	Before int64
}

// RecordEvents reads the events of a record below before (0: from the newest on),
// the newest first: up to limit, bounded in bytes too. A page of a record with
// thousands of events may be short, or empty, and yet not be the last.
// Errors: ErrNotFound.
func (l *Log) RecordEvents(ctx context.Context, feedID int64, record event.Key, before int64, limit int) (RecordPage, error) {
	sequences, next, err := l.RecordSequences(ctx, feedID, record, before, limit)
	if err != nil || len(sequences) == 0 {
		return RecordPage{Before: next}, err
	}
	rows, err := l.pool.Query(ctx, `
		SELECT `+eventColumns+` FROM (
			SELECT e.*, sum(e.size) OVER (ORDER BY e.sequence DESC ROWS UNBOUNDED PRECEDING) AS through FROM (
				SELECT e.*, 200 + coalesce(octet_length(e.data), 0) + coalesce(octet_length(e.extras), 0)
					+ coalesce(octet_length(e.resource_url), 0) AS size
				FROM unnest($2::bigint[]) AS n (sequence)
				CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.feed_id = $1 AND e.sequence = n.sequence LIMIT 1) e) e) p
		WHERE p.through - p.size < $3 ORDER BY p.sequence DESC`, feedID, sequences, l.config.PageBytes)
	if err != nil {
		return RecordPage{}, fmt.Errorf("read events of a record: %w", err)
	}
	var row eventRow
	page := RecordPage{Before: next}
	page.Events, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*event.Event, error) {
		if err := r.Scan(row.targets()...); err != nil {
			return nil, err
		}
		return row.take()
	})
	if err != nil {
		return RecordPage{}, fmt.Errorf("read events of a record: %w", err)
	}
	if n := len(page.Events); n > 0 && row.through >= int64(l.config.PageBytes) && page.Events[n-1].Sequence > sequences[len(sequences)-1] {
		page.Before = page.Events[n-1].Sequence // the bytes ended the page
	}
	return page, nil
}

// RecordSequences returns the numbers of a record's events below before (0: from
// the newest on), the newest first, up to limit, and where to go on, as
// RecordPage says. Errors: ErrNotFound.
func (l *Log) RecordSequences(ctx context.Context, feedID int64, record event.Key, before int64, limit int) (sequences []int64, next int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	var floor int64
	var many bool
	err = l.pool.QueryRow(ctx, `
		WITH few AS MATERIALIZED (SELECT sequence FROM record_sequences($1, $2, $3) AS sequence LIMIT $6 + 1)
		SELECT f.floor_sequence, (SELECT count(*) FROM few) > $6, ARRAY(
			SELECT sequence FROM few WHERE sequence > f.floor_sequence AND sequence < $4 ORDER BY sequence DESC LIMIT $5)
		FROM feeds f WHERE f.id = $1 AND f.deleted_at IS NULL`,
		feedID, record.ResourceName, record.ResourceRecordKey, before, limit, fewOfRecord).Scan(&floor, &many, &sequences)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, fmt.Errorf("feed %d: %w", feedID, ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("look for a record: %w", err)
	}
	if many {
		return l.frequentSequences(ctx, feedID, record, floor, before, limit)
	}
	if len(sequences) == limit {
		next = sequences[limit-1] // which may turn out to be the last
	}
	return sequences, next, nil
}

// frequentSequences is RecordSequences for a record with very many events.
func (l *Log) frequentSequences(ctx context.Context, feedID int64, record event.Key, floor, before int64, limit int) (sequences []int64, next int64, err error) {
	// What is looked at is as much as is needed, and where that ended is only
	// asked for where it was all.
	err = l.pool.QueryRow(ctx, `
		SELECT ARRAY(
			SELECT w.sequence FROM (
				SELECT e.sequence, e.resource_name, e.resource_key FROM events e
				WHERE e.feed_id = $1 AND e.sequence > $4 AND e.sequence < $5 ORDER BY e.sequence DESC LIMIT $7) w
			WHERE w.resource_key = $3 AND w.resource_name = $2 ORDER BY w.sequence DESC LIMIT $6)`,
		feedID, record.ResourceName, record.ResourceRecordKey, floor, before, limit, lookedForRecord).Scan(&sequences)
	if err != nil {
		return nil, 0, fmt.Errorf("look for a frequent record: %w", err)
	}
	if len(sequences) == limit {
		return sequences, sequences[limit-1], nil
	}
	err = l.pool.QueryRow(ctx, `
		SELECT coalesce((SELECT e.sequence FROM events e
			WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence < $3 ORDER BY e.sequence DESC OFFSET $4 - 1 LIMIT 1), 0)`,
		feedID, floor, before, lookedForRecord).Scan(&next)
	if err != nil {
		return nil, 0, fmt.Errorf("look for a frequent record: %w", err)
	}
	return sequences, next, nil
}
