package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// explanation gathers what is known of some events for some subscribers.
type explanation struct {
	tx    pgx.Tx
	pairs []*explained
	// newer are the events of a record above one, while compaction is looked for.
	newer map[recordOf][]newerEvent
}

// explained is one subscriber and one event.
type explained struct {
	run   *explainedRun
	event ExplainedEvent
	history
	held *DeliveryHold
	dead *DeliveryDeadLetter
}

// explainedRun is a subscriber that is asked about.
type explainedRun struct {
	Run
	filter  event.Filter
	compact string
	created time.Time
	head    int64
	replays []openReplay
	changes []positionChange
}

// openReplay is a replay that is not finished.
type openReplay struct {
	id             int64
	selection      ReplaySelection
	after, through int64
	cursor         int64
	settled        []int64
}

// positionChange is a control that says what the subscriber was owed before it:
// a seek, or a change of the filter.
type positionChange struct {
	version int64
	at      time.Time
	seek    bool
	// From and To are the seek's, PreviousFilter is the other's.
	From           int64         `json:"from"`
	To             int64         `json:"to"`
	PreviousFilter *event.Filter `json:"previousFilter"`
}

func (x *explanation) add(run *explainedRun, ev ExplainedEvent) {
	x.pairs = append(x.pairs, &explained{run: run, event: ev})
}

// known reports that the feed has, or had, an event of the number.
func (e *ExplainedEvent) known() bool { return e.Removed || e.Key != event.Key{} }

// events reads what is asked about. One that is neither there nor removed has no
// key. Errors: ErrFeedNotFound.
func (x *explanation) events(ctx context.Context, feedID int64, sequences []int64) ([]ExplainedEvent, error) {
	rows, err := x.tx.Query(ctx, `
		SELECT n.sequence,
			n.sequence BETWEEN 1 AND f.floor_sequence OR e.sequence IS NULL AND n.sequence BETWEEN 1 AND f.compacted_through,
			coalesce(e.resource_name, ''), coalesce(e.resource_key, ''),
			coalesce(e.event_type, ''), coalesce(e.recorded_at, 'epoch'), coalesce(e.erased_at IS NOT NULL, false)
		FROM feeds f CROSS JOIN unnest($2::bigint[]) WITH ORDINALITY AS n (sequence, place)
		LEFT JOIN LATERAL (
			SELECT * FROM events e WHERE e.feed_id = $1 AND e.sequence = n.sequence AND e.sequence > f.floor_sequence LIMIT 1) e ON true
		WHERE f.id = $1 AND f.deleted_at IS NULL ORDER BY n.place`, feedID, sequences)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ExplainedEvent, error) {
		var e ExplainedEvent
		err := row.Scan(&e.Sequence, &e.Removed, &e.Key.ResourceName, &e.Key.ResourceRecordKey, &e.EventType, &e.RecordedAt, &e.Erased)
		e.RecordedAt = e.RecordedAt.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if len(events) < len(sequences) {
		return nil, ErrFeedNotFound
	}
	return events, nil
}

// runs reads the subscribers that a condition on runs selects, $3 of them.
func (x *explanation) runs(ctx context.Context, condition string, args ...any) ([]explainedRun, error) {
	rows, err := x.tx.Query(ctx, `
		SELECT r.*, s.config, s.created_at, `+feedHead+`,
			CASE WHEN r.paused THEN (SELECT c.source FROM controls c WHERE c.subscriber = r.id AND c.kind = 'pause' ORDER BY c.version DESC LIMIT 1) END
		FROM (SELECT `+runColumns+` FROM runs WHERE NOT deleted AND `+condition+` ORDER BY id LIMIT $3) r
		JOIN subscribers s ON s.id = r.id JOIN feeds f ON f.id = r.feed_id ORDER BY r.id`, args...)
	if err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	runs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (explainedRun, error) {
		var r explainedRun
		var config []byte
		var pausedBy *string
		var err error
		if r.Run, err = scanRun(row, &config, &r.created, &r.head, &pausedBy); err != nil {
			return r, err
		}
		r.PausedBy = pausedBy
		var sub event.Subscriber
		if err := json.Unmarshal(config, &sub); err != nil {
			return r, fmt.Errorf("decode configuration: %w", err)
		}
		if r.filter = sub.Filter; !r.Pull {
			r.compact = sub.Compact
		}
		return r, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	return runs, nil
}

// explain reads the rest and judges each pair.
func (x *explanation) explain(ctx context.Context) ([]Delivery, error) {
	var batch pgx.Batch // one round trip
	x.readReplays(&batch)
	x.readChanges(&batch) // which readAttempts goes by
	x.readAttempts(&batch)
	x.readHeld(&batch)
	x.readDead(&batch)
	if err := x.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("read what is known: %w", err)
	}
	deliveries := make([]Delivery, 0, len(x.pairs))
	for _, p := range x.pairs {
		d := p.judge()
		if d.State == DeliverySettled && p.count == 0 && p.run.compact == event.CompactCatchUp {
			by, err := x.compactedBy(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("look for compaction: %w", err)
			}
			if by != 0 {
				d.State, d.CompactedBy = DeliveryCompacted, by
				d.Reason = fmt.Sprintf("left out while catching up: the newer event %d of the record was sent in its place", by)
			}
		}
		x.remember(p)
		deliveries = append(deliveries, d)
	}
	return deliveries, nil
}

// each calls fn for each row of a query of a batch, once it is scanned.
func each(queued *pgx.QueuedQuery, targets []any, fn func() error) {
	queued.Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, targets, fn)
		return err
	})
}

// pairArguments are the pairs, as arguments of queries.
func (x *explanation) pairArguments() (subscribers []string, sequences []int64) {
	for _, p := range x.pairs {
		subscribers, sequences = append(subscribers, p.run.ID), append(sequences, p.event.Sequence)
	}
	return subscribers, sequences
}

// byID are the subscribers, each once.
func (x *explanation) byID() (ids []string, runs map[string]*explainedRun) {
	runs = map[string]*explainedRun{}
	for _, p := range x.pairs {
		if runs[p.run.ID] == nil {
			ids = append(ids, p.run.ID)
			runs[p.run.ID] = p.run
		}
	}
	return ids, runs
}

func (x *explanation) readHeld(batch *pgx.Batch) {
	subscribers, sequences := x.pairArguments()
	queued := batch.Queue(`
		SELECT p.place, coalesce(h.replay, 0), k.since, k.attempts, k.not_before, coalesce(k.last_status, 0), coalesce(k.last_error, ''),
			(SELECT min(b.sequence) FROM held_events b
			 WHERE b.subscriber = h.subscriber AND b.resource_name = h.resource_name AND b.resource_key = h.resource_key)
		FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS p (subscriber, sequence, place)
		CROSS JOIN LATERAL (
			SELECT * FROM held_events h WHERE h.subscriber = p.subscriber AND h.sequence = p.sequence LIMIT 1) h
		CROSS JOIN LATERAL (
			SELECT * FROM held_keys k
			WHERE k.subscriber = h.subscriber AND k.resource_name = h.resource_name AND k.resource_key = h.resource_key LIMIT 1) k`,
		subscribers, sequences)
	var place int
	var h DeliveryHold
	each(queued, []any{&place, &h.Replay, &h.Since, &h.Attempts, &h.Due, &h.LastStatus, &h.LastError, &h.FirstSequence}, func() error {
		p := x.pairs[place-1]
		held := h
		held.First = held.FirstSequence == p.event.Sequence
		p.held = &held
		return nil
	})
}

func (x *explanation) readDead(batch *pgx.Batch) {
	subscribers, sequences := x.pairArguments()
	queued := batch.Queue(`
		SELECT p.place, d.reason, coalesce(d.source, ''), d.at, d.attempts, coalesce(d.last_status, 0), coalesce(d.last_error, ''), coalesce(d.replay, 0)
		FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS p (subscriber, sequence, place)
		CROSS JOIN LATERAL (
			SELECT * FROM dead_letters d WHERE d.subscriber = p.subscriber AND d.sequence = p.sequence LIMIT 1) d`,
		subscribers, sequences)
	var place int
	var d DeliveryDeadLetter
	each(queued, []any{&place, &d.Reason, &d.Source, &d.At, &d.Attempts, &d.LastStatus, &d.LastError, &d.Replay}, func() error {
		dead := d
		x.pairs[place-1].dead = &dead
		return nil
	})
}

func (x *explanation) readReplays(batch *pgx.Batch) {
	ids, runs := x.byID()
	queued := batch.Queue(`
		SELECT subscriber, id, selection, after_sequence, through_sequence, cursor, settled FROM replays
		WHERE subscriber = ANY ($1) AND state IN ('queued', 'running', 'paused') ORDER BY subscriber, id`, ids)
	var id string
	var o openReplay
	var selection []byte
	each(queued, []any{&id, &o.id, &selection, &o.after, &o.through, &o.cursor, &o.settled}, func() error {
		replay := o
		if err := json.Unmarshal(selection, &replay.selection); err != nil {
			return fmt.Errorf("decode selection: %w", err)
		}
		runs[id].replays = append(runs[id].replays, replay)
		return nil
	})
}

// readChanges reads the controls that changed what the subscribers were owed, in
// order. Their number is a subscriber's, not its events'.
func (x *explanation) readChanges(batch *pgx.Batch) {
	ids, runs := x.byID()
	queued := batch.Queue(`
		SELECT subscriber, version, applied_at, kind = $2, args FROM controls
		WHERE subscriber = ANY ($1) AND (kind = $2 OR kind = $3 AND args ? $4) AND applied_at IS NOT NULL
		ORDER BY subscriber, version`, ids, ControlSeek, kindConfigure, argPreviousFilter)
	var id string
	var c positionChange
	var args []byte
	each(queued, []any{&id, &c.version, &c.at, &c.seek, &args}, func() error {
		change := c
		if err := json.Unmarshal(args, &change); err != nil {
			return fmt.Errorf("decode control: %w", err)
		}
		runs[id].changes = append(runs[id].changes, change)
		return nil
	})
}
