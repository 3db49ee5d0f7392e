package eventlog

import (
	"context"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
)

// lowWater is the number up to which a subscriber, of the row r of runs, is owed
// no event any more: the lowest of its position, of the events that wait behind a
// held key, of its dead letters, of the positions of its open replays, and of
// where it goes back to by a seek that is accepted and not applied yet.
const lowWater = `least(r.cursor,
	(SELECT min(h.sequence) - 1 FROM held_events h WHERE h.subscriber = r.id),
	(SELECT min(d.sequence) - 1 FROM dead_letters d WHERE d.subscriber = r.id),
	(SELECT min(p.cursor) FROM replays p WHERE p.subscriber = r.id AND p.state IN ('queued', 'running', 'paused')),
	CASE WHEN r.moves > 0 THEN (SELECT min((c.args ->> 'to')::bigint) FROM controls c
		WHERE c.subscriber = r.id AND c.kind = 'seek' AND c.result IS NULL) END)`

// lowWaterOf is the lowest low-water mark of a feed's subscribers; one that is
// paused, halted or disabled counts; math.MaxInt64 where there is none. The caller
// has locked the feed's row in an earlier statement, so that nobody begins, seeks
// back or replays below what it then removes.
func lowWaterOf(ctx context.Context, tx pgx.Tx, feed int64) (int64, error) {
	var low int64
	err := tx.QueryRow(ctx, `
		SELECT coalesce(min(`+lowWater+`), $2) FROM subscribers s JOIN runs r ON r.id = s.id
		WHERE s.feed_id = $1 AND NOT r.deleted`, feed, int64(math.MaxInt64)).Scan(&low)
	if err != nil {
		return 0, fmt.Errorf("read low-water mark: %w", err)
	}
	return low, nil
}

// loseAside removes what subscribers have set aside up to a floor to come. Events
// that wait behind a held key are lost by it; dead letters were given up before.
// Open replays go on above the floor.
func loseAside(ctx context.Context, tx pgx.Tx, target int64, affected []*loss) error {
	byID := make(map[string]*loss, len(affected))
	ids := make([]string, len(affected))
	for i, s := range affected {
		byID[s.subscriber], ids[i] = s, s.subscriber
	}
	rows, _ := tx.Query(ctx, `
		WITH held AS (
			DELETE FROM held_events WHERE subscriber = ANY ($1) AND sequence <= $2 RETURNING subscriber, sequence
		), dead AS (
			DELETE FROM dead_letters WHERE subscriber = ANY ($1) AND sequence <= $2
		)
		SELECT subscriber, count(*), max(sequence) FROM held GROUP BY subscriber`, ids, target)
	var id string
	var events, through int64
	_, err := pgx.ForEachRow(rows, []any{&id, &events, &through}, func() error {
		s := byID[id]
		s.events, s.through = s.events+events, max(s.through, through)
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove what is set aside: %w", err)
	}
	_, err = tx.Exec(ctx, `
		DELETE FROM held_keys k WHERE k.subscriber = ANY ($1) AND NOT EXISTS (
			SELECT FROM held_events h WHERE h.subscriber = k.subscriber
				AND h.resource_name = k.resource_name AND h.resource_key = k.resource_key)`, ids)
	if err != nil {
		return fmt.Errorf("release keys that nothing waits for: %w", err)
	}
	_, err = tx.Exec(ctx, `
		UPDATE replays SET cursor = $2, event_attempt = 0,
			failing = nullif(jsonb_path_query_array(failing, '$[*] ? (@.sequence > $floor)', jsonb_build_object('floor', $2::bigint)), '[]'),
			settled = ARRAY(SELECT bound FROM generate_series(1, cardinality(settled) / 2) n,
				LATERAL (VALUES (0, greatest(settled[2 * n - 1], $2 + 1)), (1, settled[2 * n])) AS r (place, bound)
				WHERE settled[2 * n] > $2 ORDER BY n, place)
		WHERE subscriber = ANY ($1) AND state IN ('queued', 'running', 'paused') AND cursor < $2`, ids, target)
	if err != nil {
		return fmt.Errorf("raise replays: %w", err)
	}
	return nil
}
