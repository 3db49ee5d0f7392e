package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// countPages is how many times Config.ScanRows events one query of Count looks at.
const countPages = 100

// Count counts the events of a selection, exactly, and returns the lowest and the
// highest number among them; 0 where there is none. It looks at each event
// between the bounds, or at each of the records named: ten million take seconds.
// One query looks at a hundred times Config.ScanRows, or at all of the records'. Errors: ErrNotFound, *BelowFloorError.
func (l *Log) Count(ctx context.Context, feedID int64, s Selection) (total, first, last int64, err error) {
	if s.Keys != nil {
		sql, args := s.numbersSQL(feedID, s.After)
		c, err := l.count(ctx, s.After, `SELECT k.sequence, true AS wanted FROM (`+sql+`) k`, args)
		return c.total, c.first, c.last, err
	}
	q := stretchQuery{feed: feedID, after: s.After, upTo: s.Through, filter: s.Filter, scanRows: countPages * l.config.ScanRows}
	for q.after < s.Through {
		args, condition := q.arguments()
		c, err := l.count(ctx, s.After, `
			SELECT e.sequence, true`+condition+` AS wanted FROM events e
			WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence <= $3 ORDER BY e.sequence LIMIT $4`, args)
		if err != nil {
			return 0, 0, 0, err
		}
		if first == 0 {
			first = c.first
		}
		total, last = total+c.total, max(last, c.last)
		if c.looked < int64(q.scanRows) {
			break
		}
		q.after = c.scanned
	}
	return total, first, last, nil
}

// counted is what one query of Count found.
type counted struct {
	// looked is at how many events, the last of which is scanned.
	looked, scanned    int64
	total, first, last int64
}

// count counts what sql gives: numbers, and whether they are wanted. Its first
// argument is the feed.
func (l *Log) count(ctx context.Context, after int64, sql string, args []any) (counted, error) {
	var c counted
	var floor int64
	err := l.pool.QueryRow(ctx, `WITH b AS (`+boundsSQL+`)
		SELECT b.floor, n.* FROM b CROSS JOIN (
			SELECT count(*), coalesce(max(sequence), 0), count(*) FILTER (WHERE wanted),
				coalesce(min(sequence) FILTER (WHERE wanted), 0), coalesce(max(sequence) FILTER (WHERE wanted), 0)
			FROM (`+sql+`) looked) n`, args...).Scan(&floor, &c.looked, &c.scanned, &c.total, &c.first, &c.last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return counted{}, fmt.Errorf("feed %d: %w", args[0], ErrNotFound)
	case err != nil:
		return counted{}, fmt.Errorf("count events of feed %d: %w", args[0], err)
	case after < floor:
		return counted{}, &BelowFloorError{floor + 1}
	}
	return c, nil
}
