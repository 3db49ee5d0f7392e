package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// ErrEventNotFound says that the feed has no event of that number.
var ErrEventNotFound = errors.New("no such event")

// What became of an event of a subscriber. Of those that hold, the first in this
// order is the one that is told; the others can be seen from Delivery's members.
const (
	// DeliveryDelivered: a request that carried it was answered 2xx. It may come
	// again all the same, after a seek or in a replay.
	DeliveryDelivered = "delivered"
	// DeliveryHeld: it waits behind a held key, or is the first of it.
	DeliveryHeld = "held"
	// DeliveryDead: it was given up and is a dead letter.
	DeliveryDead = "deadLettered"
	// DeliveryRemoved: the feed keeps it no longer, and nothing else is known.
	DeliveryRemoved = "removed"
	// DeliveryFiltered: the filter, as it is now, does not let it pass. It may
	// have been refused before the filter was changed.
	DeliveryFiltered = "filtered"
	// DeliveryWaiting: the position has not come past it. It was not sent yet, or
	// was refused so far.
	DeliveryWaiting = "waiting"
	// DeliveryBeforeStart: the subscriber began above it, and it was never sent.
	DeliveryBeforeStart = "beforeStart"
	// DeliverySeek: a seek moved the position past it.
	DeliverySeek = "skippedBySeek"
	// DeliveryCompacted: a newer event of its record was sent in its place.
	DeliveryCompacted = "compacted"
	// DeliverySettled: it is dealt with, and no request that delivered it is on
	// record: attempts are kept for some days, are written up to a second late,
	// and a crash may lose the last second of them.
	DeliverySettled = "settled"
)

// ExplainedEvent is the event that is asked about.
type ExplainedEvent struct {
	Sequence int64
	// Removed says that the feed keeps it no longer: nothing else is known of it.
	Removed    bool
	Key        event.Key
	EventType  string
	RecordedAt time.Time
	// Erased says that what it carried was erased: so is what was answered to it.
	Erased bool
}

// Delivery is what became of one event for one subscriber.
type Delivery struct {
	Subscriber string `json:"subscriber"`
	Sequence   int64  `json:"sequence"`
	// State is one of the Delivery constants, Reason one sentence about it.
	State  string `json:"state"`
	Reason string `json:"reason"`
	// Attempts is how many requests that carried it are on record; where there are
	// more than are looked at, MoreAttempts is set.
	Attempts     int  `json:"attempts"`
	MoreAttempts bool `json:"moreAttempts,omitzero"`
	// Delivered is there where a request was answered 2xx.
	Delivered *DeliveredAt `json:"delivered,omitempty"`
	// LastAnswer is the newest request that carried it.
	LastAnswer *DeliveryAnswer `json:"lastAnswer,omitempty"`
	// Held is there where it waits in the row store.
	Held *DeliveryHold `json:"held,omitempty"`
	// DeadLetter is there where it is one.
	DeadLetter *DeliveryDeadLetter `json:"deadLetter,omitempty"`
	// CompactedBy is the event that was sent in its place.
	CompactedBy int64 `json:"compactedBy,omitzero"`
	// Seek is the seek that moved past it.
	Seek *DeliverySeekPast `json:"seek,omitempty"`
	// FilteredBy is the member of the filter that does not let it pass:
	// resourceNames or eventTypes.
	FilteredBy string `json:"filteredBy,omitzero"`
	// Replay is the open replay that will send it.
	Replay int64 `json:"replay,omitzero"`
	// SubscriberState and SubscriberReason are the subscriber's, while it waits.
	SubscriberState  string `json:"subscriberState,omitzero"`
	SubscriberReason string `json:"subscriberReason,omitzero"`
	// Event is the event, as far as the subscriber's filter lets it pass.
	Event *ExplainedEvent `json:"-"`
}

// DeliveredAt says when an event was accepted.
type DeliveredAt struct {
	// At is when the first request that was answered 2xx began; Attempt counts the
	// requests for its range.
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Status  int       `json:"status"`
	// Replay is the replay that the request was made for.
	Replay int64 `json:"replay,omitzero"`
	// Times is how often it was accepted, LastAt when the last time began.
	Times  int       `json:"times"`
	LastAt time.Time `json:"lastAt"`
}

// DeliveryAnswer is what came of a request.
type DeliveryAnswer struct {
	At      time.Time `json:"at"`
	Attempt int       `json:"attempt"`
	Class   string    `json:"class"`
	// Status is absent where there was no answer.
	Status *int   `json:"status,omitempty"`
	Error  string `json:"error,omitzero"`
	Replay int64  `json:"replay,omitzero"`
}

// DeliveryHold says how an event is held.
type DeliveryHold struct {
	// First says that it is the first of its key, the one that is refused;
	// FirstSequence is that one.
	First         bool      `json:"first"`
	FirstSequence int64     `json:"firstSequence"`
	Since         time.Time `json:"since"`
	// Attempts are those charged to the first event, LastStatus and LastError its
	// last answer.
	Attempts   int    `json:"attempts"`
	LastStatus int    `json:"lastStatus,omitzero"`
	LastError  string `json:"lastError,omitzero"`
	// Due is when the first event is sent again; absent: now.
	Due *time.Time `json:"due,omitempty"`
	// Replay is the replay that it was sent for.
	Replay int64 `json:"replay,omitzero"`
}

// DeliveryDeadLetter says why an event was given up.
type DeliveryDeadLetter struct {
	// Reason is DeadExhausted, DeadSkipped or DeadReleased; Source who asked.
	Reason     string    `json:"reason"`
	Source     string    `json:"source,omitzero"`
	At         time.Time `json:"at"`
	Attempts   int       `json:"attempts"`
	LastStatus int       `json:"lastStatus,omitzero"`
	LastError  string    `json:"lastError,omitzero"`
	// Replay is the replay of missed events that has taken it up.
	Replay int64 `json:"replay,omitzero"`
}

// DeliverySeekPast is a seek: the events above From up to To were skipped.
type DeliverySeekPast struct {
	// Version numbers the control.
	Version int64     `json:"version"`
	At      time.Time `json:"at"`
	From    int64     `json:"from"`
	To      int64     `json:"to"`
}

// ExplainEvent says what became of one event for the subscribers of its feed with
// an id above after, in order of id, at most limit and never more than
// SubscribersMax of them; subscriber, where it is not empty, is the only one.
//
// Errors: ErrFeedNotFound, ErrEventNotFound, and ErrNotFound where the one
// subscriber is not one of the feed.
func (s *Store) ExplainEvent(ctx context.Context, feedID, sequence int64, subscriber, after string, limit int) (ExplainedEvent, []Delivery, error) {
	var ev ExplainedEvent
	var deliveries []Delivery
	err := s.explaining(ctx, func(x *explanation) error {
		events, err := x.events(ctx, feedID, []int64{sequence})
		if err != nil {
			return err
		}
		if ev = events[0]; !ev.known() {
			return ErrEventNotFound
		}
		condition := `id IN (
			SELECT n.id FROM subscribers n JOIN runs d ON d.id = n.id
			WHERE n.feed_id = $1 AND n.id > $2 AND NOT d.deleted ORDER BY n.id LIMIT $3)`
		args := []any{feedID, after, clampLimit(limit, SubscribersMax)}
		if subscriber != "" {
			condition, args[1] = `feed_id = $1 AND id = $2`, subscriber
		}
		runs, err := x.runs(ctx, condition, args...)
		if err != nil {
			return err
		}
		if subscriber != "" && len(runs) == 0 {
			return ErrNotFound
		}
		for i := range runs {
			x.add(&runs[i], events[0])
		}
		deliveries, err = x.explain(ctx)
		return err
	})
	if err != nil {
		return ExplainedEvent{}, nil, fmt.Errorf("explain event %d: %w", sequence, err)
	}
	return ev, deliveries, nil
}

// ExplainSubscriber says what became of events for one subscriber, in the order
// of the sequences. Those of one record come newest first, and none that lies
// between two of them is left out. A number that the feed never had is left out
// of the result.
//
// Errors: ErrNotFound.
func (s *Store) ExplainSubscriber(ctx context.Context, subscriber string, sequences []int64) ([]Delivery, error) {
	var deliveries []Delivery
	err := s.explaining(ctx, func(x *explanation) error {
		runs, err := x.runs(ctx, `id = $1 AND $2 = ''`, subscriber, "", 1)
		if err != nil {
			return err
		}
		if len(runs) == 0 {
			return ErrNotFound
		}
		events, err := x.events(ctx, runs[0].FeedID, sequences)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if ev.known() {
				x.add(&runs[0], ev)
			}
		}
		deliveries, err = x.explain(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("explain deliveries of %s: %w", subscriber, err)
	}
	return deliveries, nil
}

// explaining reads everything from one snapshot: an event that moves from one
// table to another meanwhile is in one of them.
func (s *Store) explaining(ctx context.Context, fn func(*explanation) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		return fn(&explanation{tx: tx, newer: map[recordOf][]newerEvent{}})
	})
}
