package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
)

// reader reads stretches of feeds from the database.
type reader struct{ pool *pgxpool.Pool }

func (l *Log) reader() reader { return reader{l.pool} }

// stretchQuery asks for the events in (after, upTo] that a filter lets pass.
type stretchQuery struct {
	feed, after int64
	upTo        int64 // 0: no bound
	filter      event.Filter
	// rows and bytes bound what is brought; one event always fits.
	rows, bytes int
	// scanRows bounds how many events a selective filter looks at.
	scanRows int
}

// stretch is what was found.
type stretch struct {
	events []*event.Event
	// scanned: every event up to here was looked at.
	scanned     int64
	head, floor int64
	// erasures is how often events of the feed had been erased.
	erasures int64
	// compacted is where the compacted part of what is kept ends; 0: there is none.
	compacted int64
}

// boundsSQL gives one row with the floor and head of a feed that exists.
const boundsSQL = `
	SELECT f.floor_sequence AS floor, f.erasures, ` + compactedThrough + ` AS compacted,
		greatest(f.floor_sequence, (SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id)) AS head
	FROM feeds f WHERE f.id = $1 AND f.deleted_at IS NULL`

// windowSQL adds where the scan of this query ends, so that one query looks at
// a bounded number of rows.
const windowSQL = `
	SELECT b.*, w.last, w.looked FROM b CROSS JOIN LATERAL (
		SELECT coalesce(max(n.sequence), 0) AS last, count(*) AS looked FROM (
			SELECT e.sequence FROM events e WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence <= $3
			ORDER BY e.sequence LIMIT $4) n) w`

// openSQL stands in for windowSQL where every row that is looked at is brought.
const openSQL = `
	SELECT b.*, $3::bigint AS last, 0::bigint AS looked FROM b WHERE $4::bigint IS NOT NULL`

// cutSQL takes rows e, already limited in number, until they are too many
// bytes; the first always. Lengths come without reading a large body.
const cutSQL = `
	SELECT c.* FROM (
		SELECT e.*, sum(e.size) OVER (ORDER BY e.sequence ROWS UNBOUNDED PRECEDING) AS through FROM (
			SELECT e.*, 200 + coalesce(octet_length(e.data), 0) + coalesce(octet_length(e.extras), 0)
				+ coalesce(octet_length(e.resource_url), 0) AS size
			FROM %s ORDER BY e.sequence LIMIT %s) e) c
	WHERE c.through - c.size < %s`

// eventColumns are what eventRow reads, from a row p that may be absent.
const eventColumns = `coalesce(p.sequence, 0), coalesce(p.recorded_at, 'epoch'), coalesce(p.resource_name, ''),
	coalesce(p.resource_key, ''), coalesce(p.resource_url, ''), coalesce(p.event_type, ''),
	coalesce(p.occurred_at, ''), coalesce(p.extras, ''), p.data, p.erased_at, coalesce(p.through, 0)`

// stretch reads what q asks for. Errors: ErrNotFound, *BelowFloorError.
func (r reader) stretch(ctx context.Context, q stretchQuery) (stretch, error) {
	args, condition := q.arguments()
	window := openSQL
	if condition != "" {
		window = windowSQL
	}
	rowsAt, bytesAt := addArgument(&args, q.rows), addArgument(&args, q.bytes)
	from := `events e WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence <= w.last AND $2 >= w.floor` + condition
	rows, err := r.pool.Query(ctx, `WITH b AS (`+boundsSQL+`), w AS (`+window+`)
		SELECT w.floor, w.head, w.erasures, w.compacted, w.last, w.looked, `+eventColumns+` FROM w LEFT JOIN LATERAL (`+
		fmt.Sprintf(cutSQL, from, rowsAt, bytesAt)+`) p ON true ORDER BY p.sequence`, args...)
	if err != nil {
		return stretch{}, fmt.Errorf("read feed %d: %w", q.feed, err)
	}
	var last, looked int64
	s, through, err := readEvents(rows, q.feed, &last, &looked)
	switch {
	case err != nil:
		return stretch{}, err
	case q.after < s.floor:
		return stretch{}, &BelowFloorError{s.floor + 1}
	case len(s.events) > 0 && (len(s.events) >= q.rows || through >= int64(q.bytes)):
		s.scanned = s.events[len(s.events)-1].Sequence
	case condition != "" && looked >= int64(q.scanRows):
		s.scanned = last
	default:
		s.scanned = max(q.after, min(q.end(), s.head))
	}
	return s, nil
}

// readEvents reads rows of floor, head, erasures and compacted, what else the caller wants,
// and eventColumns. through is the bytes of all up to the last one. Errors:
// ErrNotFound where there is no row.
func readEvents(rows pgx.Rows, feed int64, more ...any) (s stretch, through int64, err error) {
	defer rows.Close()
	found := false
	var row eventRow
	targets := append(append([]any{&s.floor, &s.head, &s.erasures, &s.compacted}, more...), row.targets()...)
	for rows.Next() {
		found = true
		if err := rows.Scan(targets...); err != nil {
			return stretch{}, 0, fmt.Errorf("read feed %d: %w", feed, err)
		}
		if row.event.Sequence == 0 {
			break // the one row that carries the bounds alone
		}
		e, err := row.take()
		if err != nil {
			return stretch{}, 0, fmt.Errorf("read feed %d: %w", feed, err)
		}
		s.events = append(s.events, e)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return stretch{}, 0, fmt.Errorf("read feed %d: %w", feed, err)
	}
	if !found {
		return stretch{}, 0, fmt.Errorf("feed %d: %w", feed, ErrNotFound)
	}
	return s, row.through, nil
}

// numberedSQL looks each number up by the whole primary key: with a list of them
// a plan made without statistics may read the feed.
const numberedSQL = `unnest($2::bigint[]) AS n (number) CROSS JOIN LATERAL (
	SELECT * FROM events e WHERE e.feed_id = $1 AND e.sequence = n.number AND e.sequence > b.floor LIMIT 1) e`

// numbered reads events by their numbers, which rise, until they are too many
// bytes; the first always. cut says that they were.
func (r reader) numbered(ctx context.Context, feed int64, numbers []int64, bytes int) (s stretch, cut bool, err error) {
	rows, err := r.pool.Query(ctx, `WITH b AS (`+boundsSQL+`)
		SELECT b.floor, b.head, b.erasures, b.compacted, `+eventColumns+` FROM b LEFT JOIN LATERAL (`+
		fmt.Sprintf(cutSQL, numberedSQL, "$3", "$4")+`) p ON true ORDER BY p.sequence`, feed, numbers, len(numbers), bytes)
	if err != nil {
		return stretch{}, false, fmt.Errorf("read feed %d: %w", feed, err)
	}
	s, through, err := readEvents(rows, feed)
	return s, through >= int64(bytes), err
}

// match is what first found: 0 for nothing.
type match struct {
	sequence, scanned, head int64
	// done says that the end of the range was reached.
	done bool
}

// first looks for the first event q lets pass, among scanRows events at most.
// Errors: ErrNotFound, *BelowFloorError.
func (r reader) first(ctx context.Context, q stretchQuery) (match, error) {
	args, condition := q.arguments()
	if condition == "" {
		q.scanRows, args[3] = 1, 1 // the first event is the match
	}
	var m match
	var floor, last, looked int64
	err := r.pool.QueryRow(ctx, `WITH b AS (`+boundsSQL+`), w AS (`+windowSQL+`)
		SELECT w.floor, w.head, w.last, w.looked, coalesce((
			SELECT e.sequence FROM events e
			WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence <= w.last`+condition+`
			ORDER BY e.sequence LIMIT 1), 0) FROM w`, args...).Scan(&floor, &m.head, &last, &looked, &m.sequence)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return match{}, fmt.Errorf("feed %d: %w", q.feed, ErrNotFound)
	case err != nil:
		return match{}, fmt.Errorf("look for a match in feed %d: %w", q.feed, err)
	case q.after < floor:
		return match{}, &BelowFloorError{floor + 1}
	}
	m.done = looked < int64(q.scanRows)
	m.scanned = last
	if m.done {
		m.scanned = max(q.after, min(q.end(), m.head))
	}
	if m.sequence != 0 {
		m.scanned = m.sequence
	}
	return m, nil
}

// end is the last number q asks for.
func (q stretchQuery) end() int64 {
	if q.upTo == 0 {
		return math.MaxInt64
	}
	return q.upTo
}

// arguments returns $1 to $4 and those of the condition on events e that the
// filter makes; the condition is empty where every event passes.
func (q stretchQuery) arguments() (args []any, condition string) {
	args = []any{q.feed, q.after, q.end(), q.scanRows}
	var b strings.Builder
	add := func(column string, patterns []string) {
		if !selective(patterns) {
			return
		}
		exact, prefixes := []string{}, []string{}
		for _, pattern := range patterns {
			if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
				prefixes = append(prefixes, prefix)
			} else {
				exact = append(exact, pattern)
			}
		}
		// An event without the member is NULL there and matches nothing.
		fmt.Fprintf(&b, ` AND (%[1]s = ANY (%[2]s::text[]) OR %[1]s ^@ ANY (%[3]s::text[]))`,
			column, addArgument(&args, exact), addArgument(&args, prefixes))
	}
	add("e.resource_name", q.filter.ResourceNames)
	add("e.event_type", q.filter.EventTypes)
	return args, b.String()
}

// addArgument appends an argument and returns its placeholder.
func addArgument(args *[]any, value any) string {
	*args = append(*args, value)
	return "$" + strconv.Itoa(len(*args))
}

// eventRow is where eventColumns are scanned to.
type eventRow struct {
	event   event.Event
	extras  string
	erased  *time.Time
	through int64
}

func (r *eventRow) targets() []any {
	e := &r.event
	return []any{
		&e.Sequence, &e.RecordedAt, &e.ResourceName, &e.ResourceRecordKey, &e.ResourceRecordURL,
		&e.EventType, &e.OccurredAt, &r.extras, (*[]byte)(&e.Data), &r.erased, &r.through,
	}
}

// take returns the event scanned last, as one of its own.
func (r *eventRow) take() (*event.Event, error) {
	e := r.event
	r.event = event.Event{}
	e.RecordedAt = e.RecordedAt.UTC()
	if r.erased != nil {
		e.ErasedAt = r.erased.UTC()
	}
	if r.extras == "" {
		return &e, nil
	}
	return &e, decodeExtras(r.extras, &e)
}
