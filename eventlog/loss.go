package eventlog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// loss is what a subscriber loses where a floor passes its position.
type loss struct {
	subscriber string
	cursor     int64
	// settled are ranges of what is dealt with above the cursor.
	settled []int64
	filter  event.Filter
	// events is how many events that match are removed, through the last one.
	events, through int64
}

// lose notes, for each subscriber whose low-water mark is below a floor to come,
// which matching events it loses, removes what it has set aside of them, and
// returns the floor: limit, or less where there are more than most events up to it.
func lose(ctx context.Context, tx pgx.Tx, feed, floor, limit int64, most int) (target int64, losses []loss, err error) {
	err = tx.QueryRow(ctx, `
		SELECT coalesce(max(n.sequence), $2) FROM (
			SELECT e.sequence FROM events e WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence <= $3
			ORDER BY e.sequence LIMIT $4) n`, feed, floor, limit, most).Scan(&target)
	if err != nil {
		return 0, nil, fmt.Errorf("bound what is removed: %w", err)
	}
	affected, err := affectedBy(ctx, tx, feed, target)
	if err != nil || len(affected) == 0 {
		return target, nil, err
	}
	if err := countLosses(ctx, tx, feed, floor, target, affected); err != nil {
		return 0, nil, err
	}
	if err := loseAside(ctx, tx, target, affected); err != nil {
		return 0, nil, err
	}
	var ids []string
	var events, through []int64
	for _, s := range affected {
		if s.events > 0 {
			losses = append(losses, *s)
			ids, events, through = append(ids, s.subscriber), append(events, s.events), append(through, s.through)
		}
	}
	_, err = tx.Exec(ctx, `
		UPDATE runs r SET lost_events = r.lost_events + c.events, lost_through = greatest(r.lost_through, c.through),
			lost_at = clock_timestamp()
		FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS c (id, events, through) WHERE r.id = c.id`, ids, events, through)
	if err != nil {
		return 0, nil, fmt.Errorf("note what is lost: %w", err)
	}
	return target, losses, nil
}

// affectedBy locks the subscribers whose low-water mark is below a floor to come.
func affectedBy(ctx context.Context, tx pgx.Tx, feed, floor int64) ([]*loss, error) {
	rows, _ := tx.Query(ctx, `
		SELECT r.id, r.cursor, r.settled, coalesce(s.config -> 'filter', '{}') FROM subscribers s JOIN runs r ON r.id = s.id
		WHERE s.feed_id = $1 AND NOT r.deleted AND `+lowWater+` < $2 ORDER BY r.id FOR UPDATE OF r`, feed, floor)
	affected, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*loss, error) {
		s := &loss{}
		return s, row.Scan(&s.subscriber, &s.cursor, &s.settled, &s.filter)
	})
	if err != nil {
		return nil, fmt.Errorf("lock subscribers below the floor: %w", err)
	}
	return affected, nil
}

// countLosses matches the events in (floor, target] with those who are owed them.
func countLosses(ctx context.Context, tx pgx.Tx, feed, floor, target int64, affected []*loss) error {
	var index FilterIndex[*loss]
	for _, s := range affected {
		index.Add(s, s.filter)
	}
	rows, _ := tx.Query(ctx, `
		SELECT e.sequence, e.resource_name, coalesce(e.event_type, '') FROM events e
		WHERE e.feed_id = $1 AND e.sequence > $2 AND e.sequence <= $3 ORDER BY e.sequence`, feed, floor, target)
	var sequence int64
	var name, eventType string
	_, err := pgx.ForEachRow(rows, []any{&sequence, &name, &eventType}, func() error {
		hits, _ := index.Match(name, eventType)
		for _, s := range hits {
			if sequence > s.cursor && !s.dealtWith(sequence) {
				s.events++
				s.through = sequence
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count what is lost: %w", err)
	}
	return nil
}

func (s *loss) dealtWith(sequence int64) bool {
	for i := 0; i+1 < len(s.settled) && s.settled[i] <= sequence; i += 2 {
		if sequence <= s.settled[i+1] {
			return true
		}
	}
	return false
}
