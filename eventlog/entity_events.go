package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postroad/event"
)

// ErrTooExpensive says that a query of EntityEvents took longer than it may.
var ErrTooExpensive = errors.New("eventlog: the query takes too long")

// EntityQuery asks for some events of a feed, and for how many there are, by
// conditions that somebody else made. All SQL in it speaks of the events as e, has
// its values in Args from $1 on, and none of a stranger's text in it.
type EntityQuery struct {
	Feed int64
	// First and Last bound the sequences, both included.
	First, Last int64
	// Where is a condition on events; empty: all pass.
	Where string
	// After is a condition on what comes after an event that was read before;
	// empty: this is the beginning. Not together with Count, which knows no pages.
	After string
	// Order is what follows ORDER BY.
	Order string
	Args  []any
	// Record, unless empty, is a key that the events must have: they are found by
	// the index of records.
	Record string
	// Skip and Limit are the events left out at first and those wanted at most. A
	// Limit of 0 asks for none.
	Skip, Limit int64
	// Count asks for the number of events, Skip and Limit apart.
	Count bool
	// Max is how long the queries may take together. Default 4 s.
	Max time.Duration
}

// EntityEvents reads the events that q asks for and counts them if it asks for
// that; total is -1 if not. Of an event it brings what the resource EntityEvent
// shows: no data, attributes or related. The page is bounded in bytes too, one
// event always, and more says that there are more events than it has. What is below
// the feed's floor is the caller's to leave out, with First.
// Errors: ErrTooExpensive.
func (l *Log) EntityEvents(ctx context.Context, q EntityQuery) (events []event.Event, more bool, total int64, err error) {
	setDefault(&q.Max, 4*time.Second)
	began := time.Now()
	total = -1
	// One round trip begins and bounds: whoever cancels in the database keeps the
	// connection, and a context's end would cost it.
	options := pgx.TxOptions{BeginQuery: "BEGIN READ ONLY; " + timeoutSQL(q.Max)}
	err = pgx.BeginTxFunc(ctx, l.pool, options, func(tx pgx.Tx) error {
		if q.Count {
			sql, args := q.countSQL()
			if err := tx.QueryRow(ctx, sql, args...).Scan(&total); err != nil {
				return fmt.Errorf("count: %w", err)
			}
		}
		if q.Limit <= 0 {
			return nil
		}
		if q.Count { // what is left of the time
			if _, err := tx.Exec(ctx, timeoutSQL(q.Max-time.Since(began))); err != nil {
				return fmt.Errorf("bound query: %w", err)
			}
		}
		sql, args := q.pageSQL()
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		events, more, err = readEntities(rows, q.Limit, l.config.PageBytes)
		return err
	})
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return events, more, total, nil
	case errors.As(err, &pg) && pg.Code == queryCanceled:
		return nil, false, -1, fmt.Errorf("read entity events of feed %d: %w", q.Feed, ErrTooExpensive)
	}
	return nil, false, -1, fmt.Errorf("read entity events of feed %d: %w", q.Feed, err)
}

func timeoutSQL(d time.Duration) string {
	return fmt.Sprintf("SET LOCAL statement_timeout = %d", max(1, d.Milliseconds()))
}

const queryCanceled = "57014" // SQLSTATE

// from is FROM and WHERE. What strangers ask for is not prepared: it would push
// the statements of all others out of the connection's cache.
func (q *EntityQuery) from() (sql string, args []any) {
	args = append([]any{pgx.QueryExecModeExec}, q.Args...)
	number := func(value any, sqlType string) string {
		args = append(args, value)
		return fmt.Sprintf("$%d::%s", len(args)-1, sqlType)
	}
	feed := number(q.Feed, "bigint")
	sql = " FROM events e WHERE e.feed_id = " + feed
	if q.Record != "" {
		// OFFSET 0 keeps the conditions apart: the hash knows no order, and without
		// statistics the order of the primary key looks cheaper. As in record_sequences.
		key := number(q.Record, "text")
		sql = " FROM (SELECT * FROM events e WHERE hashtextextended(e.resource_key, e.feed_id) = hashtextextended(" + key + ", " + feed +
			") AND e.resource_key = " + key + " AND e.feed_id + 0 = " + feed + " OFFSET 0) e WHERE true"
	}
	sql += " AND e.sequence >= " + number(q.First, "bigint") + " AND e.sequence <= " + number(q.Last, "bigint")
	if q.Where != "" {
		sql += " AND " + q.Where
	}
	return sql, args
}

func (q *EntityQuery) countSQL() (sql string, args []any) {
	from, args := q.from()
	return "SELECT count(*)" + from, args
}

// pageSQL asks for one event more than wanted, to know whether there are more.
func (q *EntityQuery) pageSQL() (sql string, args []any) {
	from, args := q.from()
	if q.After != "" {
		from += " AND " + q.After
	}
	args = append(args, q.Skip, q.Limit)
	// The other members in extras may be large, and stay where they are.
	return `SELECT e.sequence, e.recorded_at, e.resource_name, e.resource_key, coalesce(e.resource_url, ''), coalesce(e.event_type, ''),
		CASE WHEN strpos(e.extras, '"feedTypes"') > 0 THEN ARRAY(SELECT jsonb_array_elements_text(e.extras::jsonb -> 'feedTypes')) END` +
		from + " ORDER BY " + q.Order + fmt.Sprintf(" OFFSET $%d::bigint LIMIT least($%d::bigint, 9223372036854775806) + 1", len(args)-2, len(args)-1), args
}

// readEntities reads up to limit events, until they are too many bytes, and whether
// there are more.
func readEntities(rows pgx.Rows, limit int64, bytesMax int) (events []event.Event, more bool, err error) {
	defer rows.Close()
	bytes := 0
	for rows.Next() {
		if int64(len(events)) == limit || bytes >= bytesMax {
			return events, true, nil
		}
		var e event.Event
		if err := rows.Scan(&e.Sequence, &e.RecordedAt, &e.ResourceName, &e.ResourceRecordKey, &e.ResourceRecordURL, &e.EventType, &e.FeedTypes); err != nil {
			return nil, false, err
		}
		e.RecordedAt = e.RecordedAt.UTC()
		bytes += e.Size()
		events = append(events, e)
	}
	return events, false, rows.Err()
}
