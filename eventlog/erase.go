package eventlog

import (
	"context"
	"fmt"

	"postroad/event"
)

// eraseRows is how many events one statement erases at most.
const eraseRows = 1_000

// Erase removes the data, attributes and related of every event of a record
// that the log holds, and returns how many events had not been erased before.
// The events themselves stay: number, names, type and times. What consumers
// answered last to those that are set aside is removed too.
//
// It works in steps; one that was broken off is finished by calling it again.
// Once it returned, no read shows what was erased, and followers of all
// processes forget it as soon as they hear of it (see Follower.Erased). Events of
// the record that are published later are not concerned.
func (l *Log) Erase(ctx context.Context, feedID int64, record event.Key) (int64, error) {
	var erased int64
	for after := int64(-1); ; {
		var looked, cleared int64
		err := l.pool.QueryRow(ctx, `
			WITH chosen AS (
				SELECT sequence FROM record_sequences($1, $2, $3) AS sequence WHERE sequence > $4 ORDER BY sequence LIMIT $5
			), cleared AS (
				UPDATE events e SET data = NULL, erased_at = clock_timestamp(),
					extras = nullif((e.extras::jsonb - 'attributes' - 'related')::text, '{}')
				FROM chosen WHERE e.feed_id = $1 AND e.sequence = chosen.sequence AND e.erased_at IS NULL
				RETURNING 1
			)
			SELECT (SELECT count(*) FROM chosen), coalesce((SELECT max(sequence) FROM chosen), 0), (SELECT count(*) FROM cleared)`,
			feedID, record.ResourceName, record.ResourceRecordKey, after, eraseRows).Scan(&looked, &after, &cleared)
		if err != nil {
			return erased, fmt.Errorf("erase events: %w", err)
		}
		erased += cleared
		if looked < eraseRows {
			break
		}
	}
	// What a consumer answered may quote what it was sent.
	for _, table := range []string{"held_keys", "dead_letters"} {
		_, err := l.pool.Exec(ctx, `UPDATE `+table+` a SET last_error = NULL FROM runs r WHERE r.feed_id = $1 AND a.subscriber = r.id
			AND a.resource_name = $2 AND a.resource_key = $3 AND a.last_error IS NOT NULL`,
			feedID, record.ResourceName, record.ResourceRecordKey)
		if err != nil {
			return erased, fmt.Errorf("erase answers in %s: %w", table, err)
		}
	}
	// Also where nothing was left to erase: the call before may have been broken
	// off here.
	_, err := l.pool.Exec(ctx, `UPDATE feeds SET erasures = erasures + 1, changed = pg_current_xact_id() WHERE id = $1`, feedID)
	if err != nil {
		return erased, fmt.Errorf("announce erasure: %w", err)
	}
	l.notifier.note(feedID)
	return erased, nil
}
