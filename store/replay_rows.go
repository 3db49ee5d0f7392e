package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// replayOpen is the condition that a replay is not finished, over the columns of
// replays; the index replays_open is on it.
const replayOpen = `state IN ('queued', 'running', 'paused')`

// replayColumns are the columns that scanReplay reads, in its order.
const replayColumns = `id, state, selection, after_sequence, through_sequence, total, done, source, created_at, started_at, finished_at,
	cursor, settled, previous_sequence, event_attempt, failing, failing_at, clock_timestamp()`

// scanReplay reads a row of replayColumns.
func scanReplay(row pgx.CollectableRow) (Replay, error) {
	var r Replay
	var failing []storedFailing
	var failingAt *time.Time
	var now time.Time
	err := row.Scan(&r.ID, &r.State, &r.Selection, &r.After, &r.Through, &r.Total, &r.Done, &r.Source, &r.CreatedAt, &r.StartedAt, &r.FinishedAt,
		&r.Cursor, &r.Settled, &r.PreviousSequence, &r.EventAttempt, &failing, &failingAt, &now)
	if err != nil {
		return Replay{}, err
	}
	r.Settled = rangesAbove(r.Settled, r.Cursor)
	r.FailingEvents = failingEvents(r.Cursor, failing, failingAt, now)
	r.measure(now)
	return r, nil
}

// measure computes how fast the replay is.
func (r *Replay) measure(now time.Time) {
	if r.StartedAt == nil || r.Done == 0 {
		return
	}
	if r.FinishedAt != nil {
		now = *r.FinishedAt
	}
	took := now.Sub(*r.StartedAt).Seconds()
	if took <= 0 {
		return
	}
	r.Rate = float64(r.Done) / took
	if r.State == ReplayRunning {
		left := float64(max(0, r.Total-r.Done)) / r.Rate
		r.ETASeconds = &left
	}
}

// Replays lists a subscriber's replays, the newest first: at most limit with a
// number below before; 0: from the newest on.
func (s *Store) Replays(ctx context.Context, subscriber string, before int64, limit int) ([]Replay, error) {
	return collect(ctx, s, "list replays of "+subscriber, scanReplay, `
		SELECT `+replayColumns+` FROM replays WHERE subscriber = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`,
		subscriber, before, limit)
}

// Replay reads one replay. Errors: ErrReplayNotFound.
func (s *Store) Replay(ctx context.Context, subscriber string, id int64) (Replay, error) {
	return replayOf(ctx, s.pool, subscriber, id, "")
}

func replayOf(ctx context.Context, q querier, subscriber string, id int64, locking string) (Replay, error) {
	rows, _ := q.Query(ctx, `SELECT `+replayColumns+` FROM replays WHERE subscriber = $1 AND id = $2 `+locking, subscriber, id)
	r, err := pgx.CollectExactlyOneRow(rows, scanReplay)
	if errors.Is(err, pgx.ErrNoRows) {
		return Replay{}, ErrReplayNotFound
	}
	if err != nil {
		return Replay{}, fmt.Errorf("read replay %d of %s: %w", id, subscriber, err)
	}
	return r, nil
}

// ControlReplay pauses, resumes or cancels a replay: kind is ControlReplayPause,
// ControlReplayResume or ControlReplayCancel. It is done at once, also where a run
// is sending it: the control ends that run after what is in flight. What is so
// already is no error, and no control: the result is then the last control's.
//
// Errors: ErrNotFound, ErrReplayNotFound, *ReplayFinishedError.
func (s *Store) ControlReplay(ctx context.Context, subscriber string, id int64, kind, source, requestID string) (Replay, ControlResult, error) {
	var replay Replay
	var result ControlResult
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		c := control{subscriber: subscriber, kind: kind, source: source, requestID: requestID, args: map[string]any{"replay": id}}
		if err := lockForControl(ctx, tx, subscriber); err != nil {
			return err
		}
		repeat, found, err := findControl(ctx, tx, c)
		if err != nil {
			return err
		}
		if replay, err = replayOf(ctx, tx, subscriber, id, "FOR UPDATE"); err != nil {
			return err
		}
		if found {
			result = repeat
			return nil
		}
		changed, err := changeReplay(ctx, tx, subscriber, &replay, kind)
		if err != nil {
			return err
		}
		if !changed {
			return tx.QueryRow(ctx, `SELECT desired_version, applied_version = desired_version FROM runs WHERE id = $1`, subscriber).
				Scan(&result.Version, &result.InForce)
		}
		result, err = insertControl(ctx, tx, c)
		return err
	})
	if err != nil {
		return Replay{}, ControlResult{}, fmt.Errorf("control replay %d of subscriber %s: %w", id, subscriber, err)
	}
	return replay, result, nil
}

// changeReplay changes the state of a replay that is locked; false: it is as asked
// already.
func changeReplay(ctx context.Context, tx pgx.Tx, subscriber string, r *Replay, kind string) (changed bool, err error) {
	state := ReplayPaused
	switch kind {
	case ControlReplayPause:
	case ControlReplayCancel:
		state = ReplayCancelled
	case ControlReplayResume:
		if state = ReplayQueued; r.StartedAt != nil {
			state = ReplayRunning
		}
	default:
		return false, fmt.Errorf("unknown control %q", kind)
	}
	switch r.State {
	case state:
		return false, nil
	case ReplayDone, ReplayCancelled:
		return false, &ReplayFinishedError{r.ID, r.State}
	}
	_, err = tx.Exec(ctx, `UPDATE replays SET state = $3, finished_at = CASE WHEN $3 = 'cancelled' THEN clock_timestamp() END
		WHERE subscriber = $1 AND id = $2`, subscriber, r.ID, state)
	if err != nil {
		return false, fmt.Errorf("change replay: %w", err)
	}
	if state == ReplayCancelled && r.Selection.Missed {
		// What was not accepted is missed again.
		if _, err := tx.Exec(ctx, `UPDATE dead_letters SET replay = NULL WHERE subscriber = $1 AND replay = $2`, subscriber, r.ID); err != nil {
			return false, fmt.Errorf("give dead letters back: %w", err)
		}
	}
	*r, err = replayOf(ctx, tx, subscriber, r.ID, "")
	return true, err
}
