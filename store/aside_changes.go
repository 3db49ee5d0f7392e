package store

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"postroad/event"
)

// changeAside follows changeRuns: what else checkpoints change, as far as their
// rows were written. Nobody else changes what is set aside while a lease is held,
// but for removing some of it, so that the statement's snapshot is good enough.
// A key is released only once nothing waits behind it; that it is held is told
// once, when it comes. What a run had in memory while the floor passed it is not set
// aside any more: that it is lost is counted, and nothing of it could be sent.
const changeAside = `
, replayed AS (
    UPDATE replays p SET
        cursor = greatest(p.cursor, c.cursor), settled = c.settled::bigint[], previous_sequence = c.previous_sequence,
        event_attempt = c.event_attempt, failing = c.refused::jsonb,
        failing_at = CASE WHEN c.refused IS NOT NULL THEN clock_timestamp() END,
        done = m.done, started_at = coalesce(p.started_at, clock_timestamp()),
        state = CASE WHEN m.finished THEN 'done' WHEN p.state = 'paused' THEN p.state ELSE 'running' END,
        finished_at = CASE WHEN m.finished THEN clock_timestamp() END
      FROM written w JOIN input c USING (lease) JOIN json_to_recordset($36) AS m (lease uuid, done bigint, finished boolean) USING (lease)
     WHERE p.subscriber = w.id AND p.id = c.replay AND p.state IN ('queued', 'running', 'paused')
), held AS (
    INSERT INTO held_events (subscriber, sequence, resource_name, resource_key, replay)
    SELECT w.id, m.sequence, m.name, m.key, nullif(m.replay, 0)
      FROM json_to_recordset($37) AS m (lease uuid, sequence bigint, name text, key text, replay bigint) JOIN written w USING (lease)
      JOIN feeds f ON f.id = w.feed_id AND m.sequence > f.floor_sequence
    ON CONFLICT (subscriber, sequence) DO NOTHING
), accepted AS MATERIALIZED (
    SELECT w.id, m.sequence FROM json_to_recordset($38) AS m (lease uuid, sequence bigint) JOIN written w USING (lease)
), unheld AS (
    DELETE FROM held_events h USING accepted a WHERE h.subscriber = a.id AND h.sequence = a.sequence
), keys AS (
    INSERT INTO held_keys AS k (subscriber, resource_name, resource_key, attempts, not_before, last_status, last_error)
    SELECT w.id, m.name, m.key, m.attempts, CASE WHEN m.wait_us > 0 THEN clock_timestamp() + m.wait_us * interval '1 microsecond' END,
           nullif(m.status, 0), nullif(m.error, '')
      FROM json_to_recordset($39) AS m (lease uuid, name text, key text, attempts int, wait_us bigint, status int, error text)
      JOIN written w USING (lease)
    ON CONFLICT (subscriber, resource_name, resource_key) DO UPDATE SET attempts = excluded.attempts,
        not_before = excluded.not_before, last_status = excluded.last_status, last_error = excluded.last_error
    RETURNING k.subscriber, k.resource_name, k.resource_key, k.attempts, k.last_status, k.last_error, k.xmax = 0 AS fresh
), keys_told AS (
    INSERT INTO notices (type, resource_name, resource_key, data)
    SELECT '` + NoticeKeyHeld + `', '` + resourceSubscriber + `', k.subscriber, json_build_object('subscriber', k.subscriber, 'feed', f.name,
           'resourceName', k.resource_name, 'resourceRecordKey', k.resource_key, 'sequence', m.first, 'attempts', k.attempts,
           'status', k.last_status, 'lastError', k.last_error)
      FROM keys k JOIN written w ON w.id = k.subscriber JOIN feeds f ON f.id = w.feed_id
      JOIN json_to_recordset($39) AS m (lease uuid, name text, key text, first bigint)
        ON m.lease = w.lease AND m.name = k.resource_name AND m.key = k.resource_key
     WHERE k.fresh AND f.name <> '` + event.SystemFeed + `'
), released AS (
    DELETE FROM held_keys k USING json_to_recordset($40) AS m (lease uuid, name text, key text) JOIN written w USING (lease)
     WHERE k.subscriber = w.id AND k.resource_name = m.name AND k.resource_key = m.key
       AND NOT EXISTS (SELECT FROM held_events h WHERE h.subscriber = k.subscriber AND h.resource_name = k.resource_name
               AND h.resource_key = k.resource_key
               AND NOT EXISTS (SELECT FROM accepted a WHERE a.id = h.subscriber AND a.sequence = h.sequence))
), given_up AS (
    INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, source, attempts, last_status, last_error)
    SELECT w.id, m.sequence, m.name, m.key, m.reason, nullif(m.source, ''), m.attempts, nullif(m.status, 0), nullif(m.error, '')
      FROM json_to_recordset($41) AS m (lease uuid, sequence bigint, name text, key text, reason text, source text,
               attempts int, status int, error text) JOIN written w USING (lease)
      JOIN feeds f ON f.id = w.feed_id AND m.sequence > f.floor_sequence
    ON CONFLICT (subscriber, sequence) DO UPDATE SET at = clock_timestamp(), reason = excluded.reason, source = excluded.source,
        attempts = excluded.attempts, last_status = excluded.last_status, last_error = excluded.last_error
), redelivered AS (
    DELETE FROM dead_letters d USING json_to_recordset($42) AS m (lease uuid, sequence bigint) JOIN written w USING (lease)
     WHERE d.subscriber = w.id AND d.sequence = m.sequence
)`

// asideRow is one row of what changeAside reads; each list uses some members.
type asideRow struct {
	Lease    uuid.UUID `json:"lease"`
	Sequence int64     `json:"sequence"`
	Name     string    `json:"name"`
	Key      string    `json:"key"`
	Replay   int64     `json:"replay"`
	First    int64     `json:"first"`
	Attempts int       `json:"attempts"`
	Wait     int64     `json:"wait_us"`
	Reason   string    `json:"reason"`
	Source   string    `json:"source"`
	Status   int       `json:"status"`
	Error    string    `json:"error"`
	Done     int64     `json:"done"`
	Finished bool      `json:"finished"`
}

// asideArguments are the arguments of changeAside, from $36 on: a JSON array a
// list.
func asideArguments(batch []*Checkpoint) ([]any, error) {
	var replays, hold, unhold, keys, release, dead, redelivered []asideRow
	for _, c := range batch {
		if c.Replay != 0 {
			replays = append(replays, asideRow{Lease: c.Lease, Done: c.ReplayDone, Finished: c.ReplayFinished})
		}
		if c.Aside == nil {
			continue
		}
		first := map[event.Key]int64{}
		for _, e := range c.Aside.Hold {
			hold = append(hold, asideRow{Lease: c.Lease, Sequence: e.Sequence, Name: e.Key.ResourceName, Key: e.Key.ResourceRecordKey, Replay: e.Replay})
			if was, ok := first[e.Key]; !ok || e.Sequence < was {
				first[e.Key] = e.Sequence
			}
		}
		for _, k := range c.Aside.Keys {
			keys = append(keys, asideRow{
				Lease: c.Lease, Name: k.Key.ResourceName, Key: k.Key.ResourceRecordKey, First: first[k.Key],
				Attempts: k.Attempts, Wait: k.Wait.Microseconds(), Status: k.LastStatus, Error: k.LastError,
			})
		}
		for _, k := range c.Aside.Release {
			release = append(release, asideRow{Lease: c.Lease, Name: k.ResourceName, Key: k.ResourceRecordKey})
		}
		for _, d := range c.Aside.Dead {
			dead = append(dead, asideRow{
				Lease: c.Lease, Sequence: d.Sequence, Name: d.Key.ResourceName, Key: d.Key.ResourceRecordKey, Reason: d.Reason,
				Source: d.Source, Attempts: d.Attempts, Status: d.LastStatus, Error: d.LastError,
			})
		}
		unhold = append(unhold, asideSequences(c.Lease, c.Aside.Unhold)...)
		redelivered = append(redelivered, asideSequences(c.Lease, c.Aside.Redelivered)...)
	}
	var arguments []any
	for _, list := range [][]asideRow{replays, hold, unhold, keys, release, dead, redelivered} {
		text := []byte("[]")
		if len(list) > 0 {
			var err error
			if text, err = json.Marshal(list); err != nil {
				return nil, fmt.Errorf("encode what is set aside: %w", err)
			}
		}
		arguments = append(arguments, json.RawMessage(text))
	}
	return arguments, nil
}

func asideSequences(lease uuid.UUID, sequences []int64) []asideRow {
	rows := make([]asideRow, len(sequences))
	for i, n := range sequences {
		rows[i] = asideRow{Lease: lease, Sequence: n}
	}
	return rows
}
