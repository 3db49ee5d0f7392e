package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// Bounds of what is set aside of one subscriber, and of the pages it is read in.
const (
	// HeldKeysMax is the most keys that are held, HeldEventsMax the most events
	// that wait behind them: beyond, the subscriber halts.
	HeldKeysMax   = 1_000
	HeldEventsMax = 100_000
	// AsidePageMax is the most that one call lists.
	AsidePageMax = 1_000
)

// Why an event became a dead letter: the values of reason.
const (
	DeadExhausted = "exhausted" // its attempts are used up, and onExhausted is skip
	DeadSkipped   = "skipped"   // a person skipped it
	DeadReleased  = "released"  // a person released its key
)

// FailingEvent is a refused event that waits for its next attempt.
type FailingEvent struct {
	Sequence int64
	// Attempts are the requests charged to it.
	Attempts int
	// Wait is how long it still has to wait; 0: it is due.
	Wait time.Duration
	// Proven says that an event of another key was accepted since it failed
	// first: the endpoint is not at fault.
	Proven bool
}

// HeldKey is a key whose events wait because the consumer refuses the first of
// them.
type HeldKey struct {
	Key event.Key
	// Since is when the key was set aside.
	Since time.Time
	// Events is how many wait, FirstSequence the first of them.
	Events        int
	FirstSequence int64
	// Attempts are the requests charged to the first event.
	Attempts int
	// Wait is how long the first event still has to wait, NotBefore until when;
	// 0 and nil: it is due.
	Wait      time.Duration
	NotBefore *time.Time
	// LastStatus and LastError are the last answer; 0: there was none.
	LastStatus int
	LastError  string
}

// HeldEvent is an event that waits behind a held key.
type HeldEvent struct {
	Sequence int64
	Key      event.Key
	// Replay is the replay that the event was sent for; 0: none.
	Replay int64
}

// DeadLetter is an event that was given up.
type DeadLetter struct {
	Sequence int64
	Key      event.Key
	At       time.Time
	// Reason is DeadExhausted, DeadSkipped or DeadReleased; Source who asked,
	// where somebody did.
	Reason, Source string
	// Attempts are the requests charged to it; LastStatus and LastError are the
	// last answer, 0: there was none.
	Attempts, LastStatus int
	LastError            string
	// Replay is the replay of missed events that has taken it up; 0: none.
	Replay int64
}

// AsideChanges are what a checkpoint changes of what is set aside. They are
// final states: written twice, or with what a newer checkpoint says, they do no
// harm. No event and no key stands in two of the lists that contradict each other.
type AsideChanges struct {
	// Hold are events that wait from now on, Unhold those that were accepted.
	Hold   []HeldEvent
	Unhold []int64
	// Keys are keys that are held, with their Attempts, Wait, LastStatus and
	// LastError; Release those that are held no longer.
	Keys    []HeldKey
	Release []event.Key
	// Dead are events that were given up; At and Replay are not written.
	// Redelivered are dead letters that were accepted after all.
	Dead        []DeadLetter
	Redelivered []int64
}

// heldKeys reads the held keys of subscriber $1 above ($2, $3), in their order,
// for scanHeldKey.
const heldKeys = `
	SELECT k.resource_name, k.resource_key, k.since, h.events, coalesce(h.first, 0), k.attempts, k.not_before,
	       coalesce(k.last_status, 0), coalesce(k.last_error, ''), clock_timestamp()
	  FROM held_keys k CROSS JOIN LATERAL (
	       SELECT count(*) AS events, min(e.sequence) AS first FROM held_events e
	        WHERE e.subscriber = k.subscriber AND e.resource_name = k.resource_name AND e.resource_key = k.resource_key) h
	 WHERE k.subscriber = $1 AND (k.resource_name, k.resource_key) > ($2, $3)
	 ORDER BY k.resource_name, k.resource_key`

func scanHeldKey(row pgx.CollectableRow) (HeldKey, error) {
	var k HeldKey
	var now time.Time
	err := row.Scan(&k.Key.ResourceName, &k.Key.ResourceRecordKey, &k.Since, &k.Events, &k.FirstSequence, &k.Attempts, &k.NotBefore,
		&k.LastStatus, &k.LastError, &now)
	k.Wait = remaining(k.NotBefore, now)
	return k, err
}

// HeldKeys lists the held keys of a subscriber above a key, by resource name and
// key as PostgreSQL orders texts, at most limit and AsidePageMax of them. The zero
// key is below all.
func (s *Store) HeldKeys(ctx context.Context, subscriber string, after event.Key, limit int) ([]HeldKey, error) {
	return collect(ctx, s, "list held keys of "+subscriber, scanHeldKey, heldKeys+` LIMIT $4`,
		subscriber, after.ResourceName, after.ResourceRecordKey, clampLimit(limit, AsidePageMax))
}

// HeldEvents lists the events of one held key that wait above a sequence, in
// order, at most limit and AsidePageMax of them.
func (s *Store) HeldEvents(ctx context.Context, subscriber string, key event.Key, after int64, limit int) ([]HeldEvent, error) {
	return collect(ctx, s, "list held events of "+subscriber, func(row pgx.CollectableRow) (HeldEvent, error) {
		e := HeldEvent{Key: key}
		return e, row.Scan(&e.Sequence, &e.Replay)
	}, `SELECT sequence, coalesce(replay, 0) FROM held_events
		WHERE subscriber = $1 AND resource_name = $2 AND resource_key = $3 AND sequence > $4 ORDER BY sequence LIMIT $5`,
		subscriber, key.ResourceName, key.ResourceRecordKey, after, clampLimit(limit, AsidePageMax))
}

// DeadLetters lists the dead letters of a subscriber above a sequence, in order,
// at most limit and AsidePageMax of them.
func (s *Store) DeadLetters(ctx context.Context, subscriber string, after int64, limit int) ([]DeadLetter, error) {
	return collect(ctx, s, "list dead letters of "+subscriber, func(row pgx.CollectableRow) (DeadLetter, error) {
		var d DeadLetter
		return d, row.Scan(&d.Sequence, &d.Key.ResourceName, &d.Key.ResourceRecordKey, &d.At, &d.Reason, &d.Source,
			&d.Attempts, &d.LastStatus, &d.LastError, &d.Replay)
	}, `SELECT sequence, resource_name, resource_key, at, reason, coalesce(source, ''), attempts, coalesce(last_status, 0),
		       coalesce(last_error, ''), coalesce(replay, 0)
		  FROM dead_letters WHERE subscriber = $1 AND sequence > $2 ORDER BY sequence LIMIT $3`,
		subscriber, after, clampLimit(limit, AsidePageMax))
}

// DismissDeadLetters removes the dead letters of those sequences and returns how
// many there were. Errors: ErrNotFound, for a tombstone too.
func (s *Store) DismissDeadLetters(ctx context.Context, subscriber string, sequences []int64) (int64, error) {
	var dismissed int64
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		// Whoever changes what is set aside holds the row: two could wait for each
		// other's dead letters else.
		if err := lockForControl(ctx, tx, subscriber); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM dead_letters WHERE subscriber = $1 AND sequence = ANY($2)`, subscriber, sequences)
		dismissed = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("dismiss dead letters of %s: %w", subscriber, err)
	}
	return dismissed, nil
}

// MissedSequences lists the dead letters above a sequence that a replay of missed
// events has taken up, in order, at most limit and AsidePageMax of them.
func (s *Store) MissedSequences(ctx context.Context, subscriber string, replay, after int64, limit int) ([]int64, error) {
	return collect(ctx, s, "list missed events of "+subscriber, pgx.RowTo[int64], `
		SELECT sequence FROM dead_letters WHERE subscriber = $1 AND replay = $2 AND sequence > $3 ORDER BY sequence LIMIT $4`,
		subscriber, replay, after, clampLimit(limit, AsidePageMax))
}

// DeadSequences lists the dead letters in (after, through], in order, at most
// limit of them.
func (s *Store) DeadSequences(ctx context.Context, subscriber string, after, through int64, limit int) ([]int64, error) {
	return collect(ctx, s, "list dead letters of "+subscriber, pgx.RowTo[int64], `
		SELECT sequence FROM dead_letters WHERE subscriber = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence LIMIT $4`,
		subscriber, after, through, limit)
}
