package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// skipArgs are the args of skipping the event at which a locked row is halted.
func skipArgs(ctx context.Context, tx pgx.Tx, r ControlRequest) (map[string]any, error) {
	run, err := readRun(ctx, tx, r.Subscriber)
	if err != nil {
		return nil, err
	}
	switch {
	case run.HaltedReason == nil:
		return nil, &NotHaltedAtError{Sequence: r.Sequence}
	case run.HaltedEvent != r.Sequence || r.Sequence == 0:
		return nil, &NotHaltedAtError{Sequence: r.Sequence, Halted: true, At: run.HaltedEvent}
	}
	return map[string]any{"sequence": r.Sequence}, nil
}

// skipHalted makes a dead letter of the event at which a locked row is halted, if
// it still is, and ends the halt as resume does. A pause stays.
func skipHalted(ctx context.Context, tx pgx.Tx, subscriber string, c pendingControl) (bool, error) {
	run, err := readRun(ctx, tx, subscriber)
	if err != nil {
		return false, err
	}
	if run.HaltedReason == nil || run.HaltedEvent != c.args.Sequence {
		return false, nil
	}
	at := stream{run.Cursor, run.Settled, run.PreviousSequence, run.EventAttempt, run.FailingEvents}
	if run.HaltedReplay != 0 {
		replay, err := replayOf(ctx, tx, subscriber, run.HaltedReplay, "FOR UPDATE")
		if err != nil && !errors.Is(err, ErrReplayNotFound) { // one that is kept no longer has no position
			return false, err
		}
		at = stream{replay.Cursor, replay.Settled, replay.PreviousSequence, replay.EventAttempt, replay.FailingEvents}
	}
	// One that is no longer kept leaves no dead letter: nothing could be sent again.
	_, err = tx.Exec(ctx, `
		INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, source, attempts, last_error)
		SELECT $1, e.sequence, e.resource_name, e.resource_key, $4, $5, $6, $7 FROM events e WHERE e.feed_id = $2 AND e.sequence = $3`+againDead,
		subscriber, run.FeedID, c.args.Sequence, DeadSkipped, c.source, at.attemptsOf(c.args.Sequence), run.LastError)
	if err != nil {
		return false, fmt.Errorf("insert dead letter: %w", err)
	}
	at.skip(c.args.Sequence)
	table, condition := `runs`, `id = $1 AND $7 = 0`
	if run.HaltedReplay != 0 {
		table, condition = `replays`, `subscriber = $1 AND id = $7`
	}
	_, err = tx.Exec(ctx, `UPDATE `+table+` SET cursor = $2, settled = $3, previous_sequence = $4, event_attempt = $5,
		failing = $6::text::jsonb, failing_at = clock_timestamp() WHERE `+condition,
		subscriber, at.cursor, at.settled, at.previous, at.eventAttempt, failingText(at.failing), run.HaltedReplay)
	if err != nil {
		return false, fmt.Errorf("move position: %w", err)
	}
	if run.HaltedReplay != 0 {
		_, err = tx.Exec(ctx, `UPDATE replays SET done = done + 1 WHERE subscriber = $1 AND id = $2 AND done < total`, subscriber, run.HaltedReplay)
		if err != nil {
			return false, fmt.Errorf("count skipped event: %w", err)
		}
	}
	_, err = tx.Exec(ctx, `UPDATE runs SET halted_reason = NULL, halted_event = NULL, halted_replay = NULL, wait_reason = NULL,
		wait_class = NULL, failing_since = NULL, failures = 0, probe = true WHERE id = $1`, subscriber)
	if err != nil {
		return false, fmt.Errorf("end halt: %w", err)
	}
	return true, nil
}

// stream is the position of a run or of a replay.
type stream struct {
	cursor       int64
	settled      []int64
	previous     int64
	eventAttempt int
	failing      []FailingEvent
}

// attemptsOf is how many requests were charged to an event that was refused.
func (s *stream) attemptsOf(sequence int64) int {
	for _, e := range s.failing {
		if e.Sequence == sequence {
			return e.Attempts
		}
	}
	return s.eventAttempt
}

// skip deals with one event.
func (s *stream) skip(sequence int64) {
	switch {
	case sequence <= s.cursor:
	case sequence == s.cursor+1:
		s.cursor, s.previous = sequence, sequence
	default:
		s.settled = withSequence(s.settled, sequence)
	}
	s.eventAttempt = 0
	// After a halt the events that fail begin anew.
	s.failing = nil
}
