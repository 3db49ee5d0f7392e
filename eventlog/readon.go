package eventlog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// readOnFeeds bounds how many feeds one query reads on in.
const readOnFeeds = 64

// readOnBytesMin is what each feed may bring at least, however many they are,
// where a page may be that large.
const readOnBytesMin = 64 << 10

// aboveSQL reads events of several feeds, each above its own position.
var aboveSQL = `
	SELECT w.id, f.floor_sequence, ` + eventColumns + `
	FROM unnest($1::bigint[], $2::bigint[]) AS w (id, after) JOIN feeds f ON f.id = w.id LEFT JOIN LATERAL (` +
	fmt.Sprintf(cutSQL, `events e WHERE e.feed_id = w.id AND e.sequence > greatest(w.after, f.floor_sequence)`, "$3", "$4") + `) p ON true
	ORDER BY w.id, p.sequence`

// reading is one query for the next events of several feeds.
type reading struct {
	feeds       []*feedTail
	ids, afters []int64
	rows, bytes int // the most of each feed
	brought     map[int64]bundle
}

// bundle is what one query brought of one feed.
type bundle struct {
	events []*event.Event
	bytes  int64
	// floor is the feed's, in the same snapshot: events up to it may be missing.
	floor int64
}

// reading prepares to read on in the first of these feeds, from where each stands.
// Those that nobody follows any more are left out, and taken from feeds.
func (t *tail) reading(feeds map[*feedTail]struct{}) *reading {
	r := &reading{rows: t.config.PageRows}
	for f := range feeds {
		if f.gone.Load() {
			delete(feeds, f)
			continue
		}
		f.mu.Lock()
		begun, after := f.begun, f.hi
		f.mu.Unlock()
		if !begun {
			continue
		}
		r.feeds, r.ids, r.afters = append(r.feeds, f), append(r.ids, f.id), append(r.afters, after)
		if len(r.feeds) == readOnFeeds {
			break
		}
	}
	r.bytes = max(t.config.PageBytes/max(1, len(r.feeds)), min(readOnBytesMin, t.config.PageBytes))
	return r
}

func (r *reading) arguments() []any { return []any{r.ids, r.afters, r.rows, r.bytes} }

// takeTold prepares to read on in the feeds that are said to have grown. It may be
// more than is read at once: the others are found by their marks.
func (t *tail) takeTold() *reading {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer clear(t.told)
	return t.reading(t.told)
}

// readOn reads on in feeds that are behind, many at once, and says whether any
// still is.
func (t *tail) readOn(ctx context.Context) (more bool, err error) {
	r := t.reading(t.behind)
	if len(r.feeds) == 0 {
		return false, nil
	}
	rows, _ := t.pool.Query(ctx, aboveSQL, r.arguments()...)
	if err := r.scan(rows); err != nil {
		return false, err
	}
	t.bring(r)
	return len(t.behind) > 0, nil
}

// bring takes what was read into the rings. The marks are older than what was
// read: all up to the head they name was there, unless it was cut.
func (t *tail) bring(r *reading) {
	if r.brought == nil {
		return // it was not read: a fresh start looks at all feeds
	}
	if len(r.feeds) > 0 {
		t.reads.Inc()
	}
	for _, f := range r.feeds {
		b := r.brought[f.id] // empty where the feed is gone
		t.rings.mark(f, b.floor, 0)
		cut := len(b.events) >= r.rows || b.bytes >= int64(r.bytes)
		t.rings.add(f, b.events, !cut)
		if cut {
			t.behind[f] = struct{}{}
		} else {
			delete(t.behind, f)
		}
	}
}

// scan takes in what the query brought.
func (r *reading) scan(rows pgx.Rows) error {
	defer rows.Close()
	r.brought = map[int64]bundle{}
	var row eventRow
	var id, floor int64
	targets := append([]any{&id, &floor}, row.targets()...)
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return fmt.Errorf("read new events: %w", err)
		}
		if row.event.Sequence == 0 { // there is nothing but the floor
			r.brought[id] = bundle{floor: floor}
			row.event = event.Event{}
			continue
		}
		e, err := row.take()
		if err != nil {
			return err
		}
		r.brought[id] = bundle{append(r.brought[id].events, e), row.through, floor}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read new events: %w", err)
	}
	return nil
}
