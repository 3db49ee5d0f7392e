package eventlog

import (
	"context"
	"fmt"

	"postroad/event"
)

// readOnFeeds bounds how many feeds one query reads on in.
const readOnFeeds = 64

// readOnBytesMin is what each feed may bring at least, however many they are,
// where a page may be that large.
const readOnBytesMin = 64 << 10

// readOn reads on in feeds that are behind, many at once, and says whether any
// still is.
func (t *tail) readOn(ctx context.Context) (more bool, err error) {
	var feeds []*feedTail
	var ids, afters, heads []int64
	for f := range t.behind {
		if f.gone.Load() {
			delete(t.behind, f)
			continue
		}
		f.mu.Lock()
		after, head := f.hi, f.head
		f.mu.Unlock()
		feeds, ids, afters, heads = append(feeds, f), append(ids, f.id), append(afters, after), append(heads, head)
		if len(feeds) == readOnFeeds {
			break
		}
	}
	if len(feeds) == 0 {
		return false, nil
	}
	bytesMax := max(t.config.PageBytes/len(feeds), min(readOnBytesMin, t.config.PageBytes))
	brought, err := t.readAbove(ctx, ids, afters, bytesMax)
	if err != nil {
		return false, err
	}
	for i, f := range feeds {
		b := brought[f.id]
		t.rings.mark(f, b.floor, 0)
		cut := len(b.events) >= t.config.PageRows || b.bytes >= int64(bytesMax)
		t.rings.add(f, b.events, heads[i], !cut)
		if !cut {
			delete(t.behind, f)
		}
	}
	return len(t.behind) > 0, nil
}

// bundle is what one query brought of one feed.
type bundle struct {
	events []*event.Event
	bytes  int64
	// floor is the feed's, in the same snapshot: events up to it may be missing.
	floor int64
}

// readAbove reads events of several feeds, each above its own position.
func (t *tail) readAbove(ctx context.Context, ids, afters []int64, bytesMax int) (map[int64]bundle, error) {
	rows, err := t.pool.Query(ctx, `
		SELECT w.id, f.floor_sequence, `+eventColumns+`
		FROM unnest($1::bigint[], $2::bigint[]) AS w (id, after) JOIN feeds f ON f.id = w.id LEFT JOIN LATERAL (`+
		fmt.Sprintf(cutSQL, `events e WHERE e.feed_id = w.id AND e.sequence > greatest(w.after, f.floor_sequence)`, "$3", "$4")+`) p ON true
		ORDER BY w.id, p.sequence`, ids, afters, t.config.PageRows, bytesMax)
	if err != nil {
		return nil, fmt.Errorf("read new events: %w", err)
	}
	defer rows.Close()
	brought := map[int64]bundle{}
	var row eventRow
	var id, floor int64
	targets := append([]any{&id, &floor}, row.targets()...)
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return nil, fmt.Errorf("read new events: %w", err)
		}
		if row.event.Sequence == 0 { // there is nothing but the floor
			brought[id] = bundle{floor: floor}
			row.event = event.Event{}
			continue
		}
		e, err := row.take()
		if err != nil {
			return nil, err
		}
		brought[id] = bundle{append(brought[id].events, e), row.through, floor}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read new events: %w", err)
	}
	return brought, nil
}
