package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// OverviewWorst is how many subscribers an Overview names.
const OverviewWorst = 20

// Overview is how all subscribers together fare.
type Overview struct {
	// At is when it was looked at, by this host's clock.
	At time.Time
	// States has an entry for each of the States.
	States map[string]StateOverview
	// Worst are those furthest behind by number of events, at most OverviewWorst,
	// none that is not behind.
	Worst []SubscriberLag
}

// StateOverview is how the subscribers in one state fare.
type StateOverview struct {
	// Subscribers are those in the state.
	Subscribers int64
	// LagEvents is the sum of their LagEvents, LagEventsMax the greatest one, as
	// in Status.
	LagEvents, LagEventsMax int64
	// LagMax is the age of the oldest event that one of them has not scanned.
	LagMax time.Duration
}

// SubscriberLag is how far behind a subscriber is.
type SubscriberLag struct {
	Subscriber string
	Events     int64
}

// stateOf is the choice of describe, in the same order, over the columns of
// runs; behind is the condition under which events are left to scan, looked at
// only where the answer hangs on it.
func stateOf(behind string) string {
	return `CASE
			WHEN disabled THEN 'disabled'
			WHEN halted_reason IS NOT NULL THEN 'halted'
			WHEN paused AND (paused_until IS NULL OR paused_until > clock_timestamp()) THEN 'paused'
			WHEN pull THEN CASE WHEN ` + behind + ` THEN 'active' ELSE 'idle' END
			WHEN not_before > clock_timestamp() AND wait_class = 'asked' THEN 'waiting'
			WHEN not_before > clock_timestamp() OR failing_since IS NOT NULL OR failures > 0 OR event_attempt > 0 THEN 'retrying'
			WHEN in_flight > 0 THEN 'active'
			WHEN parked THEN 'idle'
			WHEN ` + behind + ` THEN 'active'
			ELSE 'idle' END`
}

// overviewQuery looks at each run once and at each feed's head once. Within a
// feed the oldest event not scanned is the one after the lowest cursor, so one
// event is looked up for each state of each feed.
var overviewQuery = `
	WITH heads AS MATERIALIZED (
		SELECT f.id AS feed_id, f.floor_sequence AS floor, ` + feedHead + ` AS head FROM feeds f
	), looked AS MATERIALIZED (
		SELECT runs.id, feed_id, greatest(cursor, floor) AS after,
			CASE WHEN parked THEN 0 ELSE greatest(0, head - cursor - CASE WHEN settled = '{}' THEN 0 ELSE (
				SELECT sum(settled[2 * n] - settled[2 * n - 1] + 1)::bigint FROM generate_series(1, cardinality(settled) / 2) n) END) END AS lag, ` + stateOf(`cursor < head`) + ` AS state
		FROM runs JOIN heads USING (feed_id) WHERE NOT deleted
	), oldest AS (
		SELECT g.state, max(extract(epoch FROM clock_timestamp() - e.recorded_at)) AS age
		FROM (SELECT state, feed_id, min(after) AS after FROM looked WHERE lag > 0 GROUP BY state, feed_id) g
		CROSS JOIN LATERAL (
			SELECT recorded_at FROM events e WHERE e.feed_id = g.feed_id AND e.sequence > g.after ORDER BY e.sequence LIMIT 1) e
		GROUP BY g.state
	)
	(SELECT '' AS id, state, count(*), sum(lag)::bigint, max(lag), greatest(0, coalesce(max(age), 0))::float8
	 FROM looked LEFT JOIN oldest USING (state) GROUP BY state)
	UNION ALL
	(SELECT id, state, 1, lag, lag, 0 FROM looked WHERE lag > 0 ORDER BY lag DESC, id LIMIT $1)`

// Overview reads how all subscribers fare. It reads every run: once in a while,
// by one process, is often enough.
func (s *Store) Overview(ctx context.Context) (*Overview, error) {
	o := &Overview{At: time.Now(), States: map[string]StateOverview{}}
	for _, state := range []string{StateDisabled, StateHalted, StatePaused, StateWaiting, StateRetrying, StateActive, StateIdle} {
		o.States[state] = StateOverview{}
	}
	rows, err := s.pool.Query(ctx, overviewQuery, OverviewWorst)
	if err != nil {
		return nil, fmt.Errorf("look over subscribers: %w", err)
	}
	var id, state string
	var of StateOverview
	var seconds float64
	_, err = pgx.ForEachRow(rows, []any{&id, &state, &of.Subscribers, &of.LagEvents, &of.LagEventsMax, &seconds}, func() error {
		if id != "" {
			o.Worst = append(o.Worst, SubscriberLag{id, of.LagEvents})
			return nil
		}
		of.LagMax = time.Duration(seconds * float64(time.Second))
		o.States[state] = of
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look over subscribers: %w", err)
	}
	return o, nil
}
