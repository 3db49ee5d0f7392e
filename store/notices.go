package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// What is told on event.SystemFeed: the event types.
const (
	NoticeHalted        = "subscriber.halted"    // nothing is sent until it is resumed
	NoticeDisabled      = "subscriber.disabled"  // the same; the consumer answered 410
	NoticeRetrying      = "subscriber.retrying"  // the endpoint has failed for a while
	NoticeBehind        = "subscriber.behind"    // further than its alert allows
	NoticeRecovered     = "subscriber.recovered" // from one of these
	NoticeKeyHeld       = "key.held"             // its events wait, the others go on
	NoticeLogPinned     = "log.pinned"           // a subscriber keeps a feed from being shortened
	NoticeTokenExpiring = "token.expiring"
)

// resourceSubscriber is the resourceName of notices about subscribers; their
// data is made when they are read.
const resourceSubscriber = "Subscriber"

// noticeRun is what describe needs of the row of alias r, under the names of
// Run's fields.
const noticeRun = `json_build_object('ID', r.id, 'Disabled', r.disabled, 'HaltedReason', r.halted_reason,
	'Paused', r.paused, 'PausedUntil', r.paused_until, 'PauseReason', r.pause_reason, 'Parked', r.parked, 'Pull', r.pull, 'Cursor', r.cursor,
	'NotBefore', r.not_before, 'WaitReason', r.wait_reason, 'WaitClass', r.wait_class, 'FailingSince', r.failing_since,
	'Settled', r.settled, 'Failures', r.failures, 'EventAttempt', r.event_attempt, 'InFlight', r.in_flight, 'LastError', r.last_error)`

// insertNotices notes what became of the rows of written that have a run: turn,
// from what (was), and how far behind in seconds (lag). The subscribers of
// _system are left out: what it tells must not make more of it. The feed is
// looked up row by row, as there is hardly ever one.
const insertNotices = `
    INSERT INTO notices (type, resource_name, resource_key, data)
    SELECT 'subscriber.' || w.turn, '` + resourceSubscriber + `', w.id, json_build_object('run', w.run, 'feed', f.name, 'head', f.head,
           'from', CASE WHEN w.turn = 'recovered' THEN w.was END, 'lagSeconds', w.lag)
      FROM written w CROSS JOIN LATERAL (SELECT f.name, ` + feedHead + ` AS head FROM feeds f WHERE f.id = w.feed_id LIMIT 1) f
     WHERE w.run IS NOT NULL AND f.name <> '` + event.SystemFeed + `'`

// Notices are what has to be told and was not yet.
type Notices struct {
	// IDs and Events belong together, one by one. Each event has an idempotency
	// key of its own.
	IDs    []int64
	Events []event.Event
}

// Notices reads the first notices by id, at most limit. One that this release
// cannot read is handed on as it was noted: it must hold up no other.
func (s *Store) Notices(ctx context.Context, limit int) (Notices, error) {
	var n Notices
	_, err := collect(ctx, s, "read notices", func(row pgx.CollectableRow) (struct{}, error) {
		var id int64
		var at time.Time
		var e event.Event
		var data []byte
		err := row.Scan(&id, &at, &e.EventType, &e.ResourceName, &e.ResourceRecordKey, &data)
		if err != nil {
			return struct{}{}, err
		}
		e.IdempotencyKey = fmt.Sprintf("notice/%d", id)
		e.OccurredAt = at.UTC().Format(time.RFC3339Nano)
		if e.Data, err = noticeData(&e, data, at.UTC()); err != nil {
			s.logger.Warn("notice told as it was noted", "id", id, "error", err)
			e.Data = data
		}
		n.IDs, n.Events = append(n.IDs, id), append(n.Events, e)
		return struct{}{}, nil
	}, `SELECT id, at, type, resource_name, resource_key, data FROM notices ORDER BY id LIMIT $1`, limit)
	return n, err
}

// subscriberNotice is the data of a notice about a subscriber; its members mean
// what those of Status do.
type subscriberNotice struct {
	// Type is the event's, Text one sentence with all of it: some receivers are
	// sent the data alone.
	Type       string    `json:"type"`
	Text       string    `json:"text"`
	At         time.Time `json:"at"`
	Subscriber string    `json:"subscriber"`
	Feed       string    `json:"feed"`
	State      string    `json:"state"`
	Reason     string    `json:"reason"`
	// From is what a subscriber recovered from: retrying, halted, disabled, behind.
	From       string   `json:"from,omitempty"`
	Cursor     int64    `json:"cursor"`
	Head       int64    `json:"head"`
	LagEvents  int64    `json:"lagEvents"`
	LagSeconds *float64 `json:"lagSeconds,omitempty"`
}

// noticeData makes an event's data of what was noted.
func noticeData(e *event.Event, noted []byte, at time.Time) (json.RawMessage, error) {
	switch {
	case e.EventType == NoticeKeyHeld:
		return keyNoticeData(noted, at)
	case e.ResourceName != resourceSubscriber:
		return noted, nil
	}
	var n struct {
		Run        Run
		Feed, From string
		Head       int64
		LagSeconds *float64
	}
	if err := json.Unmarshal(noted, &n); err != nil {
		return nil, fmt.Errorf("decode notice: %w", err)
	}
	n.Run.Now = at
	status := Status{Head: n.Head}
	status.fill(&n.Run, nil)
	d := subscriberNotice{
		Type: e.EventType, At: at, Subscriber: n.Run.ID, Feed: n.Feed, State: status.State, Reason: status.Reason, From: n.From,
		Cursor: n.Run.Cursor, Head: n.Head, LagEvents: status.LagEvents, LagSeconds: n.LagSeconds,
	}
	d.Text = fmt.Sprintf("subscriber %s on feed %s", d.Subscriber, d.Feed)
	switch e.EventType {
	case NoticeRetrying:
		d.Text += " is failing: "
	case NoticeBehind:
		d.Text += fmt.Sprintf(" is %.0f s behind: ", *cmp.Or(n.LagSeconds, new(float64)))
	case NoticeRecovered:
		d.Text += " has recovered: "
	default: // the reason says it
		d.Text += " is "
	}
	d.Text += d.Reason
	return json.Marshal(d)
}

// keyNotice is the data of a notice about a held key.
type keyNotice struct {
	Type              string    `json:"type"`
	Text              string    `json:"text"`
	At                time.Time `json:"at"`
	Subscriber        string    `json:"subscriber"`
	Feed              string    `json:"feed"`
	ResourceName      string    `json:"resourceName"`
	ResourceRecordKey string    `json:"resourceRecordKey"`
	// Sequence is the event that was refused, Attempts how often.
	Sequence  int64  `json:"sequence"`
	Attempts  int    `json:"attempts"`
	Status    int    `json:"status,omitempty"`
	LastError string `json:"lastError,omitempty"`
}

func keyNoticeData(noted []byte, at time.Time) (json.RawMessage, error) {
	k := keyNotice{Type: NoticeKeyHeld, At: at}
	if err := json.Unmarshal(noted, &k); err != nil {
		return nil, fmt.Errorf("decode notice: %w", err)
	}
	k.Text = fmt.Sprintf("subscriber %s on feed %s: events of %s/%s are set aside, event %d was refused %d times",
		k.Subscriber, k.Feed, k.ResourceName, k.ResourceRecordKey, k.Sequence, k.Attempts)
	if k.LastError != "" {
		k.Text += ", last answer " + k.LastError
	}
	return json.Marshal(k)
}

// DropNotices removes notices that were told.
func (s *Store) DropNotices(ctx context.Context, ids []int64) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM notices WHERE id = ANY($1)`, ids); err != nil {
		return fmt.Errorf("remove notices: %w", err)
	}
	return nil
}

// watchLag looks at subscribers that have an alert and notes those that are not
// as it was told of them last. One is behind no longer when its lag is down to
// half of what the alert allows, so that a lag of about that size is not told
// again and again. A row that somebody has locked is looked at the next time.
const watchLag = `
WITH watched AS MATERIALIZED (
    SELECT s.id, (s.config #>> '{alert,lagSeconds}')::bigint AS allowed FROM subscribers s
     WHERE s.config ? 'alert' AND s.id > $1 ORDER BY s.id LIMIT $2
), seen AS MATERIALIZED (
    SELECT r.id, r.behind, o.lag
      FROM watched w JOIN runs r ON r.id = w.id JOIN feeds f ON f.id = r.feed_id
      CROSS JOIN LATERAL (
          SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - e.recorded_at) FROM events e
           WHERE NOT r.parked AND e.feed_id = r.feed_id AND e.sequence > greatest(r.cursor, f.floor_sequence)
           ORDER BY e.sequence LIMIT 1), 0) AS lag) o
     WHERE NOT r.deleted AND r.behind <> (o.lag > CASE WHEN r.behind THEN w.allowed / 2.0 ELSE w.allowed END)
), locked AS MATERIALIZED (
    SELECT r.id FROM runs r JOIN seen ON seen.id = r.id ORDER BY r.id FOR UPDATE OF r SKIP LOCKED
), written AS (
    UPDATE runs r SET behind = NOT seen.behind FROM seen JOIN locked USING (id)
     WHERE r.id = seen.id AND r.behind = seen.behind AND NOT r.deleted
    RETURNING r.id, r.feed_id, CASE WHEN r.behind THEN 'behind' ELSE 'recovered' END AS turn, 'behind' AS was,
        round(seen.lag, 3) AS lag, ` + noticeRun + ` AS run
), told AS (` + insertNotices + `
)
SELECT count(*), coalesce(max(id), '') FROM watched`

// WatchLag notes which subscribers with an alert fell behind, and which are not
// behind any more, among those with an id above after, at most limit of them. It
// returns the id to go on after, "": there are no more.
func (s *Store) WatchLag(ctx context.Context, after string, limit int) (string, error) {
	var n int
	var last string
	if err := s.pool.QueryRow(ctx, watchLag, after, limit).Scan(&n, &last); err != nil {
		return "", fmt.Errorf("look for subscribers that are behind: %w", err)
	}
	if n < limit {
		return "", nil
	}
	return last, nil
}

// Lasting is something that lasts and is told once.
type Lasting struct {
	// Key tells it from others of its type.
	Key string
	// ResourceName and ResourceKey are the event's record, Data its data.
	ResourceName, ResourceKey string
	Data                      any
}

// TellLasting notes what there is now of one type (NoticeLogPinned,
// NoticeTokenExpiring). What was noted before is noted again once again is over,
// 0: never. What is no longer there is forgotten, and new when it comes back,
// once forget is over since it was noted.
func (s *Store) TellLasting(ctx context.Context, kind string, there []Lasting, again, forget time.Duration) error {
	keys, names, resources := make([]string, len(there)), make([]string, len(there)), make([]string, len(there))
	data := make([][]byte, len(there))
	for i, l := range there {
		keys[i], names[i], resources[i] = l.Key, l.ResourceName, l.ResourceKey
		var err error
		if data[i], err = json.Marshal(l.Data); err != nil {
			return fmt.Errorf("encode notice: %w", err)
		}
	}
	if again == 0 {
		again = time.Duration(math.MaxInt64)
	}
	_, err := s.pool.Exec(ctx, `
		WITH there AS (
		    SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::json[])
		        WITH ORDINALITY AS l (key, resource_name, resource_key, data, place)
		), gone AS (
		    DELETE FROM told WHERE type = $1 AND at < clock_timestamp() - $7::interval AND NOT key = ANY($2)
		), fresh AS (
		    INSERT INTO told AS t (type, key) SELECT $1, key FROM there ORDER BY key
		    ON CONFLICT (type, key) DO UPDATE SET at = excluded.at WHERE t.at < excluded.at - $6::interval
		    RETURNING key
		)
		INSERT INTO notices (type, resource_name, resource_key, data)
		SELECT $1, l.resource_name, l.resource_key, l.data FROM fresh JOIN there l USING (key) ORDER BY l.place`,
		kind, keys, names, resources, data, again, forget)
	if err != nil {
		return fmt.Errorf("note %s: %w", kind, err)
	}
	return nil
}
