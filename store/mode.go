package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// switchMode makes the locked row one of the subscriber's new mode. The control
// that goes with it ends a run that holds the row, after what is in flight.
func switchMode(ctx context.Context, tx pgx.Tx, sub event.Subscriber) error {
	if sub.Mode == event.ModePull {
		return toPull(ctx, tx, sub.ID)
	}
	return toPush(ctx, tx, sub.ID)
}

// toPull ends a parking: nobody is to be woken any more. A replay is a matter of
// requests, and so has to be over.
func toPull(ctx context.Context, tx pgx.Tx, id string) error {
	var replay int64
	err := tx.QueryRow(ctx, `SELECT id FROM replays WHERE subscriber = $1 AND `+replayOpen+` ORDER BY id LIMIT 1`, id).Scan(&replay)
	if err == nil {
		return &ReplayOpenError{ID: replay}
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for open replays: %w", err)
	}
	_, err = tx.Exec(ctx, `UPDATE runs SET pull = true, lease = CASE WHEN NOT parked THEN lease END, parked = false, wake_at = NULL WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("switch to pull: %w", err)
	}
	return notify(ctx, tx, ParkedChannel, id)
}

// toPush gives back what is handed out: it will be sent. What was known of requests
// is of another time; what the consumer asked for with Retry-After still counts.
func toPush(ctx context.Context, tx pgx.Tx, id string) error {
	if err := dropLeases(ctx, tx, id); err != nil {
		return err
	}
	if err := endFailureBackoff(ctx, tx, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE runs SET pull = false, previous_sequence = 0, event_attempt = 0, failing = NULL, failing_at = NULL,
		       range_first = 0, range_last = 0, range_attempt = 0, batch_limit = 0, in_flight = 0, last_error = NULL
		 WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("switch to push: %w", err)
	}
	return nil
}

// mustPush refuses what is a matter of requests. The caller holds the row.
func mustPush(ctx context.Context, tx pgx.Tx, id string) error {
	var pull bool
	if err := tx.QueryRow(ctx, `SELECT pull FROM runs WHERE id = $1`, id).Scan(&pull); err != nil {
		return fmt.Errorf("read mode: %w", err)
	}
	if pull {
		return ErrPulls
	}
	return nil
}
