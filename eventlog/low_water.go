package eventlog

import (
	"context"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
)

// lowWater returns the number up to which no subscriber of a feed is owed an
// event any more: the lowest of their positions, of the events that wait behind a
// held key, of dead letters, and of the positions of open replays. One that is
// paused, halted or disabled counts; math.MaxInt64 where there is none.
//
// The caller has locked the feed's row in an earlier statement, so that nobody
// begins, seeks back or replays below what it removes.
func lowWater(ctx context.Context, tx pgx.Tx, feed int64) (int64, error) {
	var low int64
	err := tx.QueryRow(ctx, `
		SELECT coalesce(min(least(r.cursor,
			(SELECT min(h.sequence) - 1 FROM held_events h WHERE h.subscriber = r.id),
			(SELECT min(d.sequence) - 1 FROM dead_letters d WHERE d.subscriber = r.id),
			(SELECT min(p.cursor) FROM replays p WHERE p.subscriber = r.id AND p.state IN ('queued', 'running', 'paused')))), $2)
		FROM subscribers s JOIN runs r ON r.id = s.id WHERE s.feed_id = $1 AND NOT r.deleted`, feed, int64(math.MaxInt64)).Scan(&low)
	if err != nil {
		return 0, fmt.Errorf("read low-water mark: %w", err)
	}
	return low, nil
}
