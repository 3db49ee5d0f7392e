package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// seekTarget is where a seek goes to, as far as it is known before anything is
// locked.
type seekTarget struct {
	source
	to int64
}

// seekTarget resolves where a seek goes to. A time takes many statements; what it
// finds stays true, as times rise with the numbers and events never change.
func (s *Store) seekTarget(ctx context.Context, r ControlRequest) (seekTarget, error) {
	if r.Seek == nil {
		return seekTarget{}, errors.New("a seek without a target")
	}
	src, err := s.sourceOf(ctx, r.Subscriber)
	if err != nil {
		return seekTarget{}, err
	}
	t := seekTarget{source: src}
	switch {
	case r.Seek.Sequence != nil:
		t.to = *r.Seek.Sequence
	case r.Seek.Time != nil:
		// Where the first event recorded then will be is not known yet.
		var future, removed bool
		if err := s.pool.QueryRow(ctx, `SELECT $1::timestamptz > clock_timestamp()`, *r.Seek.Time).Scan(&future); err != nil {
			return seekTarget{}, fmt.Errorf("compare with the clock: %w", err)
		}
		if future {
			return seekTarget{}, ErrSeekFuture
		}
		if t.to, removed, err = s.recordedBefore(ctx, src, *r.Seek.Time, false); err == nil && removed {
			// What else was recorded since then is not known any more.
			err = &SeekBelowFloorError{FirstSequence: src.floor + 1}
		}
	case r.Seek.Now:
		t.to = src.head
	case r.Seek.Beginning:
		t.to = src.floor
	default:
		err = errors.New("a seek without a target")
	}
	return t, err
}

// lock keeps the floor from rising past the target until the transaction ends, and
// reads it again, and the head.
func (t *seekTarget) lock(ctx context.Context, tx pgx.Tx) error {
	if err := tx.QueryRow(ctx, `SELECT floor_sequence FROM feeds WHERE id = $1 FOR SHARE`, t.feed).Scan(&t.floor); err != nil {
		return fmt.Errorf("lock feed: %w", err)
	}
	err := tx.QueryRow(ctx, `SELECT greatest($2, coalesce(max(sequence), 0)) FROM events WHERE feed_id = $1`, t.feed, t.floor).Scan(&t.head)
	if err != nil {
		return fmt.Errorf("read head of feed: %w", err)
	}
	return nil
}

// args are the seek's: from where and to where, and what was asked for. It is
// called under the locks.
func (t *seekTarget) args(ctx context.Context, tx pgx.Tx, r ControlRequest) (map[string]any, error) {
	args := map[string]any{}
	switch {
	case r.Seek.Beginning:
		t.to, args["target"] = t.floor, "beginning"
	case r.Seek.Now:
		t.to, args["target"] = t.head, "now"
	case r.Seek.Time != nil:
		args["time"] = r.Seek.Time.UTC()
	}
	switch {
	case t.to > t.head:
		return nil, &SeekAboveHeadError{Sequence: t.to, Head: t.head}
	case t.to < t.floor:
		return nil, &SeekBelowFloorError{Sequence: t.to, FirstSequence: t.floor + 1}
	}
	var from int64
	if err := tx.QueryRow(ctx, `SELECT cursor FROM runs WHERE id = $1`, r.Subscriber).Scan(&from); err != nil {
		return nil, fmt.Errorf("read position: %w", err)
	}
	args["from"], args["to"] = from, t.to
	return args, nil
}

// seek moves the position of a locked row. Back, or to where it is, everything
// above the target comes again, so that nothing above it is dealt with or set
// aside any more. Forward, what is set aside stays.
func seek(ctx context.Context, tx pgx.Tx, subscriber string, to int64) error {
	run, err := readRun(ctx, tx, subscriber)
	if err != nil {
		return err
	}
	settled, scanned, failing := []int64{}, int64(0), []FailingEvent(nil)
	if to > run.Cursor {
		settled = rangesAbove(run.Settled, to)
		if run.Scanned > to {
			scanned = run.Scanned
		}
		failing = run.FailingEvents // those that it passes are no longer read
	}
	_, err = tx.Exec(ctx, `
		UPDATE runs SET cursor = $2, settled = $3, scanned = $4, failing = $5::text::jsonb, failing_at = clock_timestamp(),
		       previous_sequence = 0, event_attempt = 0, range_first = 0, range_last = 0, range_attempt = 0,
		       halted_event = CASE WHEN halted_replay IS NOT NULL OR halted_event > $2 AND $2 > cursor THEN halted_event END
		 WHERE id = $1`, subscriber, to, settled, scanned, failingText(failing))
	if err != nil {
		return fmt.Errorf("move position: %w", err)
	}
	if err := dropLeases(ctx, tx, subscriber); err != nil {
		return err
	}
	if to <= run.Cursor {
		if err := dropAsideAbove(ctx, tx, subscriber, to); err != nil {
			return err
		}
	}
	return notify(ctx, tx, ParkedChannel, subscriber)
}

// dropAsideAbove forgets what is set aside above a sequence.
func dropAsideAbove(ctx context.Context, tx pgx.Tx, subscriber string, sequence int64) error {
	var batch pgx.Batch
	batch.Queue(`DELETE FROM held_events WHERE subscriber = $1 AND sequence > $2`, subscriber, sequence)
	batch.Queue(releaseEmpty, subscriber)
	batch.Queue(`DELETE FROM dead_letters WHERE subscriber = $1 AND sequence > $2`, subscriber, sequence)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("drop what is set aside: %w", err)
	}
	return nil
}
