package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

const (
	// explainedAttemptsMax is how many attempts of one event for one subscriber
	// are looked at, the newest of each width of their ranges.
	explainedAttemptsMax = 1000
	// newerEventsMax is how many newer events of a record are looked at for the one
	// that was sent in place of an older one.
	newerEventsMax = 200
	// newerEventsAtOnce is how many of them one query looks at.
	newerEventsAtOnce = 25
)

// carrier is a request whose range an event lies in.
type carrier struct {
	id          int64
	started     time.Time
	first, last int64
	events      int
	attempt     int
	class       string
	status      *int
	error       string
	named       bool // its sequences are stored, and the event is one of them
	replay      int64
	compacted   int
}

func (c *carrier) accepted() bool { return c.status != nil && *c.status >= 200 && *c.status <= 299 }

// history is what the attempts say of one event for one subscriber.
type history struct {
	count int
	more  bool
	// accepted is how many of the requests were answered 2xx, first and latest are
	// of those, newest of all.
	accepted              int
	first, latest, newest *carrier
}

// carriersQuery finds, for pairs of a subscriber and an event, the requests whose
// range the event lies in. All sequences of a range share their digits but the last
// so many, the event's too: so of each number of digits there is one place in the
// index to look at. Plans must go by it, whatever statistics say: the other
// conditions are no ones that an index knows.
const carriersQuery = `
	SELECT p.place, a.id, a.started_at, a.first_sequence, a.last_sequence, a.event_count, a.attempt, a.class, a.status,
		coalesce(a.error, ''), a.sequences IS NOT NULL, coalesce(a.replay, 0), coalesce(a.compacted, 0)
	FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) WITH ORDINALITY AS p (subscriber, sequence, since, place)
	CROSS JOIN generate_series(1, $4::integer) AS w (digits)
	CROSS JOIN LATERAL (
		SELECT * FROM attempts
		WHERE ` + attemptCell + ` = (((p.sequence >> 1) >> (4 * w.digits - 1)) << 28)
				# ((hashtext(p.subscriber) & 16777215)::bigint << 4) # (w.digits & 15)
			AND subscriber || '' = p.subscriber AND p.sequence BETWEEN first_sequence AND last_sequence
			AND started_at >= p.since AND (sequences IS NULL OR p.sequence = ANY (sequences))
		ORDER BY id + 0 DESC LIMIT $5) a`

// carriers calls found for each request. Attempts of whoever had the subscriber's
// id before are not among them.
func carriers(batch *pgx.Batch, pairs []*explained, found func(p *explained, c carrier)) {
	var subscribers []string
	var sequences []int64
	var since []time.Time
	var widest int64
	for _, p := range pairs {
		subscribers, sequences, since = append(subscribers, p.run.ID), append(sequences, p.event.Sequence), append(since, p.run.created)
		widest = max(widest, p.run.head)
	}
	digits := len(fmt.Sprintf("%x", widest))
	var place int
	var c carrier
	targets := []any{
		&place, &c.id, &c.started, &c.first, &c.last, &c.events, &c.attempt, &c.class, &c.status,
		&c.error, &c.named, &c.replay, &c.compacted,
	}
	each(batch.Queue(carriersQuery, subscribers, sequences, since, digits, explainedAttemptsMax+1), targets, func() error {
		found(pairs[place-1], c)
		return nil
	})
}

func (x *explanation) readAttempts(batch *pgx.Batch) {
	carriers(batch, x.pairs, func(p *explained, c carrier) {
		if p.carried(&c) {
			p.note(c)
		}
	})
}

// carried reports whether a request whose range the event lies in carried it: a
// request without stored sequences carried what the filter let pass at the time.
func (p *explained) carried(c *carrier) bool {
	n := p.event.Sequence
	if c.events == 0 {
		return false // a test
	}
	if c.named || n == c.first || n == c.last || int64(c.events) == c.last-c.first+1 {
		return true
	}
	return !p.event.Removed && p.run.filterAt(c.started).Match(p.event.Key.ResourceName, p.event.EventType)
}

// filterAt is the filter that was in force at a time.
func (r *explainedRun) filterAt(at time.Time) event.Filter {
	for _, c := range r.changes {
		if c.PreviousFilter != nil && c.at.After(at) {
			return *c.PreviousFilter
		}
	}
	return r.filter
}

func (h *history) note(c carrier) {
	if h.count == explainedAttemptsMax {
		h.more = true
		return
	}
	h.count++
	if h.newest == nil || c.id > h.newest.id {
		h.newest = &c
	}
	if !c.accepted() {
		return
	}
	h.accepted++
	if h.first == nil || c.id < h.first.id {
		h.first = &c
	}
	if h.latest == nil || c.id > h.latest.id {
		h.latest = &c
	}
}

// recordOf is a record as a subscriber is sent it.
type recordOf struct {
	subscriber string
	event.Key
}

// newerEvent is an event of the same record above the one asked about.
type newerEvent struct {
	sequence int64
	kind     string
	// looked says that compacted is known: how many older events were left out for
	// the request that delivered it.
	looked    bool
	compacted int
}

// compactedBy finds the newer event of the record that was sent in place of one:
// the first that was sent at all, by a request for which at least as many older
// events were left out as there are between the two. 0: there is none.
func (x *explanation) compactedBy(ctx context.Context, p *explained) (int64, error) {
	key := recordOf{p.run.ID, p.event.Key}
	newer, known := x.newer[key]
	if !known {
		var err error
		if newer, err = x.newerEvents(ctx, p); err != nil {
			return 0, err
		}
		x.newer[key] = newer
	}
	left := 0 // events from this one on that were left out
	for chunk := range slices.Chunk(newer, newerEventsAtOnce) {
		if err := x.lookCompacted(ctx, p, chunk); err != nil {
			return 0, err
		}
		for _, n := range chunk {
			if !p.run.filter.Match(key.ResourceName, n.kind) {
				continue
			}
			left++
			switch {
			case n.compacted >= left:
				return n.sequence, nil
			case n.compacted >= 0:
				return 0, nil // it was sent, and not in place of this one
			}
		}
	}
	return 0, nil
}

// remember adds an event to those that are newer than the next one asked about.
func (x *explanation) remember(p *explained) {
	key := recordOf{p.run.ID, p.event.Key}
	if newer, ok := x.newer[key]; ok {
		x.newer[key] = slices.Insert(newer, 0, newerEvent{sequence: p.event.Sequence, kind: p.event.EventType, compacted: -1})
	}
}

// newerEvents reads the events of the record above one that the position has come
// past, in order. A record with very many events is looked for among those that
// follow, which are then soon found.
func (x *explanation) newerEvents(ctx context.Context, p *explained) ([]newerEvent, error) {
	const fewMax = 2_000
	rows, err := x.tx.Query(ctx, `
		WITH few AS MATERIALIZED (SELECT sequence FROM record_sequences($1, $2, $3) AS sequence LIMIT $7 + 1)
		SELECT e.sequence, coalesce(e.event_type, '') FROM (
			SELECT e.* FROM (SELECT sequence FROM few WHERE sequence > $4 AND sequence <= $5 ORDER BY sequence LIMIT $6) n
			CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.feed_id = $1 AND e.sequence = n.sequence LIMIT 1) e
			WHERE (SELECT count(*) FROM few) <= $7
			UNION ALL
			(SELECT e.* FROM (
				SELECT * FROM events e WHERE e.feed_id = $1 AND e.sequence > $4 AND e.sequence <= $5 ORDER BY e.sequence LIMIT 25 * $7) e
			WHERE e.resource_name = $2 AND e.resource_key = $3 AND (SELECT count(*) FROM few) > $7
			ORDER BY e.sequence LIMIT $6)) e
		ORDER BY e.sequence`, p.run.FeedID, p.event.Key.ResourceName, p.event.Key.ResourceRecordKey,
		p.event.Sequence, max(p.run.Cursor, p.run.Scanned), newerEventsMax, fewMax)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (newerEvent, error) {
		n := newerEvent{compacted: -1}
		err := row.Scan(&n.sequence, &n.kind)
		return n, err
	})
}

// lookCompacted fills in by what kind of request newer events were delivered:
// compacted stays -1 where none did.
func (x *explanation) lookCompacted(ctx context.Context, p *explained, chunk []newerEvent) error {
	var pairs []*explained
	places := map[*explained]*newerEvent{}
	for i := range chunk {
		if n := &chunk[i]; !n.looked {
			n.looked = true
			pair := &explained{run: p.run, event: ExplainedEvent{Sequence: n.sequence, Key: p.event.Key, EventType: n.kind}}
			pairs, places[pair] = append(pairs, pair), n
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	var batch pgx.Batch
	carriers(&batch, pairs, func(pair *explained, c carrier) {
		if n := places[pair]; c.accepted() && pair.carried(&c) {
			n.compacted = max(n.compacted, c.compacted)
		}
	})
	return x.tx.SendBatch(ctx, &batch).Close()
}
