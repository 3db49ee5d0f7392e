package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// movingKinds are the controls that move the position, or what is set aside: one
// run must have ended, and the next not begun, where they are applied.
var movingKinds = map[string]bool{
	ControlSeek: true, ControlHeldRetry: true, ControlHeldSkip: true, ControlHeldRelease: true, ControlSkip: true,
}

// moving is the condition that a control is one of movingKinds; pendingMove, that
// it is not applied yet as well. That it was applied is its result: a release
// before this one writes applied_at, and applies nothing.
const (
	moving      = `kind IN ('` + ControlSeek + `', '` + ControlHeldRetry + `', '` + ControlHeldSkip + `', '` + ControlHeldRelease + `', '` + ControlSkip + `')`
	pendingMove = moving + ` AND result IS NULL`
)

// Results of controls that move something.
const (
	resultApplied = "applied"
	resultVoid    = "void" // there was nothing left to do
)

// move applies the controls of a locked row that move something, if it is free:
// nobody holds its lease, or it is parked. Else whoever takes it next does.
func move(ctx context.Context, tx pgx.Tx, subscriber string, free bool) error {
	if _, err := tx.Exec(ctx, `UPDATE runs SET moves = moves + 1 WHERE id = $1`, subscriber); err != nil {
		return fmt.Errorf("note move: %w", err)
	}
	if !free {
		return nil
	}
	return applyMoves(ctx, tx, subscriber)
}

// pendingControl is a control that is not applied yet.
type pendingControl struct {
	version      int64
	kind, source string
	args         moveArgs
}

// moveArgs are the args of controls that move something.
type moveArgs struct {
	To                int64  `json:"to"`
	ResourceName      string `json:"resourceName"`
	ResourceRecordKey string `json:"resourceRecordKey"`
	Sequence          int64  `json:"sequence"`
}

// applyMoves applies the pending moves of a locked row in the order in which they
// were accepted. No run holds the row, or it is about to lose it: what it held in
// memory is void. A parked row that has something to do by it is due at once.
func applyMoves(ctx context.Context, tx pgx.Tx, subscriber string) error {
	rows, err := tx.Query(ctx, `SELECT version, kind, source, args FROM controls
		WHERE subscriber = $1 AND `+pendingMove+` ORDER BY version`, subscriber)
	if err != nil {
		return fmt.Errorf("list moves: %w", err)
	}
	pending, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (pendingControl, error) {
		var c pendingControl
		return c, row.Scan(&c.version, &c.kind, &c.source, &c.args)
	})
	if err != nil {
		return fmt.Errorf("list moves: %w", err)
	}
	for _, c := range pending {
		result, err := c.apply(ctx, tx, subscriber)
		if err != nil {
			return fmt.Errorf("apply %s: %w", c.kind, err)
		}
		_, err = tx.Exec(ctx, `UPDATE controls SET result = $3, applied_at = clock_timestamp() WHERE subscriber = $1 AND version = $2`,
			subscriber, c.version, result)
		if err != nil {
			return fmt.Errorf("note that %s is applied: %w", c.kind, err)
		}
	}
	// A run that parked the row and did not hear of it writes its parking again.
	_, err = tx.Exec(ctx, `UPDATE runs SET moves = 0, wake_at = CASE WHEN parked THEN clock_timestamp() END,
		lease = CASE WHEN NOT parked THEN lease END WHERE id = $1`, subscriber)
	if err != nil {
		return fmt.Errorf("note moves: %w", err)
	}
	return nil
}

func (c pendingControl) apply(ctx context.Context, tx pgx.Tx, subscriber string) (result string, err error) {
	done := true
	switch c.kind {
	case ControlSeek:
		err = seek(ctx, tx, subscriber, c.args.To)
	case ControlHeldRetry:
		done, err = changed(tx.Exec(ctx, `UPDATE held_keys SET not_before = NULL
			WHERE subscriber = $1 AND resource_name = $2 AND resource_key = $3`, subscriber, c.args.ResourceName, c.args.ResourceRecordKey))
	case ControlHeldSkip:
		done, err = skipHeld(ctx, tx, subscriber, c)
	case ControlHeldRelease:
		done, err = releaseHeld(ctx, tx, subscriber, c)
	case ControlSkip:
		done, err = skipHalted(ctx, tx, subscriber, c)
	}
	if !done {
		return resultVoid, err
	}
	return resultApplied, err
}

// heldArgs are the args of a control of a held key, which must be held. The event
// to skip is fixed here: nobody skips one that was not seen.
func heldArgs(ctx context.Context, tx pgx.Tx, r ControlRequest) (map[string]any, error) {
	var first int64
	err := tx.QueryRow(ctx, `
		SELECT coalesce((SELECT min(h.sequence) FROM held_events h WHERE h.subscriber = k.subscriber
		       AND h.resource_name = k.resource_name AND h.resource_key = k.resource_key), 0)
		  FROM held_keys k WHERE k.subscriber = $1 AND k.resource_name = $2 AND k.resource_key = $3`,
		r.Subscriber, r.Key.ResourceName, r.Key.ResourceRecordKey).Scan(&first)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, &KeyNotHeldError{Key: r.Key}
	}
	if err != nil {
		return nil, fmt.Errorf("read held key: %w", err)
	}
	args := map[string]any{"resourceName": r.Key.ResourceName, "resourceRecordKey": r.Key.ResourceRecordKey}
	if r.Kind == ControlHeldSkip {
		if r.Sequence != 0 && r.Sequence != first {
			return nil, &NotFirstHeldError{Key: r.Key, Sequence: r.Sequence, First: first}
		}
		args["sequence"] = first
	}
	return args, nil
}

// skipHeld makes a dead letter of the first event of a held key, if it still is
// the first. The next one is due at once.
func skipHeld(ctx context.Context, tx pgx.Tx, subscriber string, c pendingControl) (bool, error) {
	done, err := changed(tx.Exec(ctx, `
		WITH first AS (
		    SELECT h.sequence, k.attempts, k.last_status, k.last_error FROM held_events h
		      JOIN held_keys k USING (subscriber, resource_name, resource_key)
		     WHERE h.subscriber = $1 AND h.resource_name = $2 AND h.resource_key = $3 ORDER BY h.sequence LIMIT 1
		), removed AS (
		    DELETE FROM held_events h USING first f WHERE h.subscriber = $1 AND h.sequence = f.sequence AND f.sequence = $4
		)
		INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, source, attempts, last_status, last_error)
		SELECT $1, f.sequence, $2, $3, $5, $6, f.attempts, f.last_status, f.last_error FROM first f WHERE f.sequence = $4`+againDead,
		subscriber, c.args.ResourceName, c.args.ResourceRecordKey, c.args.Sequence, DeadSkipped, c.source))
	if err != nil || !done {
		return done, err
	}
	_, err = tx.Exec(ctx, `UPDATE held_keys SET attempts = 0, not_before = NULL, last_status = NULL, last_error = NULL
		WHERE subscriber = $1 AND resource_name = $2 AND resource_key = $3`, subscriber, c.args.ResourceName, c.args.ResourceRecordKey)
	if err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, releaseEmpty, subscriber)
	return true, err
}

// againDead goes on INSERT INTO dead_letters: an event may have been given up
// before, and been sent again.
const againDead = `
	ON CONFLICT (subscriber, sequence) DO UPDATE SET at = clock_timestamp(), reason = excluded.reason, source = excluded.source,
	    attempts = excluded.attempts, last_status = excluded.last_status, last_error = excluded.last_error`

// releaseEmpty releases the keys of a subscriber behind which nothing waits.
const releaseEmpty = `
	DELETE FROM held_keys k WHERE k.subscriber = $1 AND NOT EXISTS (
	    SELECT FROM held_events h WHERE h.subscriber = k.subscriber AND h.resource_name = k.resource_name AND h.resource_key = k.resource_key)`

// releaseHeld makes dead letters of all events of a held key, and holds it no
// longer. What is known of attempts is the first one's.
func releaseHeld(ctx context.Context, tx pgx.Tx, subscriber string, c pendingControl) (bool, error) {
	return changed(tx.Exec(ctx, `
		WITH key AS (
		    DELETE FROM held_keys WHERE subscriber = $1 AND resource_name = $2 AND resource_key = $3
		    RETURNING attempts, last_status, last_error
		), waiting AS (
		    DELETE FROM held_events WHERE subscriber = $1 AND resource_name = $2 AND resource_key = $3 RETURNING sequence
		)
		INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, source, attempts, last_status, last_error)
		SELECT $1, w.sequence, $2, $3, $4, $5, coalesce(k.attempts, 0), k.last_status, k.last_error
		  FROM waiting w LEFT JOIN key k ON w.sequence = (SELECT min(sequence) FROM waiting)`+againDead,
		subscriber, c.args.ResourceName, c.args.ResourceRecordKey, DeadReleased, c.source))
}

// changed reads the tag of a statement: whether it changed anything.
func changed(tag interface{ RowsAffected() int64 }, err error) (bool, error) {
	return tag.RowsAffected() > 0, err
}
