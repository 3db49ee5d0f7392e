package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// errFloorRose says that the floor passed the beginning of a replay while its
// events were counted.
var errFloorRose = errors.New("the floor rose")

// CreateReplay makes a replay, or with DryRun says only what it would be: Total,
// First, Last, After and Through. Its bounds are fixed by it: later events are not
// part of it. It is queued at once; the control ends the run of the subscriber
// after what is in flight, and the next one looks for replays first.
//
// Counting may take long, so it is done before anything is locked; then the floor
// is looked at once more under the locks. What lies between the floor and the
// head never changes, but by compaction, so that the count is exact.
//
// Errors: ErrNotFound, ErrPulls, *ReplayRefusedError, ErrReplayNotFound for the repeat of a
// request whose replay is no longer kept, and Count's.
func (s *Store) CreateReplay(ctx context.Context, r ReplayRequest) (Replay, ControlResult, error) {
	replay, result, err := s.createReplay(ctx, r)
	if err != nil {
		return Replay{}, ControlResult{}, fmt.Errorf("replay events for subscriber %s: %w", r.Subscriber, err)
	}
	return replay, result, nil
}

func (s *Store) createReplay(ctx context.Context, r ReplayRequest) (Replay, ControlResult, error) {
	if err := r.check(); err != nil {
		return Replay{}, ControlResult{}, err
	}
	if !r.DryRun {
		replay, result, found, err := repeatedReplay(ctx, s.pool, r)
		if err != nil || found {
			return replay, result, err
		}
	}
	const rounds = 5 // each needs a floor that rises meanwhile
	for range rounds {
		src, err := s.sourceOf(ctx, r.Subscriber)
		if err != nil {
			return Replay{}, ControlResult{}, err
		}
		planned, err := s.planReplay(ctx, src, r)
		if err != nil || r.DryRun {
			return planned, ControlResult{}, err
		}
		replay, result, err := s.storeReplay(ctx, src, planned, r)
		if !errors.Is(err, errFloorRose) {
			return replay, result, err
		}
	}
	return Replay{}, ControlResult{}, errFloorRose
}

// planReplay returns the replay that a request would make.
func (s *Store) planReplay(ctx context.Context, src source, r ReplayRequest) (Replay, error) {
	p := Replay{
		State: ReplayQueued, Source: r.Source,
		Selection: ReplaySelection{ResourceNames: r.ResourceNames, Keys: r.Keys, Missed: r.Missed},
	}
	var err error
	if r.Missed {
		err = s.pool.QueryRow(ctx, `SELECT count(*), coalesce(min(sequence), 0), coalesce(max(sequence), 0) FROM dead_letters d
			WHERE d.subscriber = $1 AND `+deadLetterFree, r.Subscriber).Scan(&p.Total, &p.First, &p.Last)
		p.After, p.Through = max(0, p.First-1), p.Last
	} else {
		if p.After, p.Through, err = s.replayBounds(ctx, src, r); err != nil {
			return Replay{}, err
		}
		p.Total, p.First, p.Last, err = r.Count(ctx, ReplayStretch{
			FeedID: src.feed, After: p.After, Through: p.Through, Filter: src.filter.Within(r.ResourceNames), Keys: r.Keys,
		})
	}
	if err != nil {
		return Replay{}, fmt.Errorf("count what would be replayed: %w", err)
	}
	if p.Total == 0 {
		refused := &ReplayRefusedError{Reason: ReplayEmpty, Head: src.head, FirstSequence: src.floor + 1}
		if !r.Missed {
			refused.From, refused.To = p.After+1, p.Through
		}
		return Replay{}, refused
	}
	return p, nil
}

// deadLetterFree is the condition that no open replay has taken up a dead letter
// d: what a finished one did not deliver is missed as before.
const deadLetterFree = `(d.replay IS NULL OR NOT EXISTS (
	SELECT FROM replays p WHERE p.subscriber = d.subscriber AND p.id = d.replay AND p.` + replayOpen + `))`

// storeReplay stores a planned replay as a control. The feed is locked before the
// row, as where the floor is raised: else the two could wait for each other.
func (s *Store) storeReplay(ctx context.Context, src source, p Replay, r ReplayRequest) (Replay, ControlResult, error) {
	var result ControlResult
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var floor int64
		if err := tx.QueryRow(ctx, `SELECT floor_sequence FROM feeds WHERE id = $1 FOR SHARE`, src.feed).Scan(&floor); err != nil {
			return fmt.Errorf("lock feed: %w", err)
		}
		if err := lockForControl(ctx, tx, r.Subscriber); err != nil {
			return err
		}
		repeat, repeated, found, err := repeatedReplay(ctx, tx, r)
		if err != nil || found {
			p, result = repeat, repeated
			return err
		}
		if err := mustPush(ctx, tx, r.Subscriber); err != nil {
			return err
		}
		if p.After < floor && !r.Missed {
			return errFloorRose
		}
		if err := insertReplay(ctx, tx, r.Subscriber, &p); err != nil {
			return err
		}
		c := control{subscriber: r.Subscriber, kind: ControlReplay, source: r.Source, requestID: r.RequestID}
		c.args = map[string]any{"replay": p.ID, "after": p.After, "through": p.Through, "total": p.Total}
		result, err = insertControl(ctx, tx, c)
		return err
	})
	return p, result, err
}

// insertReplay gives a planned replay the next number and removes what is too old.
// The caller holds the subscriber's row.
func insertReplay(ctx context.Context, tx pgx.Tx, subscriber string, p *Replay) error {
	var open int
	err := tx.QueryRow(ctx, `
		SELECT coalesce(max(id), 0) + 1, count(*) FILTER (WHERE `+replayOpen+`) FROM replays WHERE subscriber = $1`, subscriber).Scan(&p.ID, &open)
	if err != nil {
		return fmt.Errorf("number replay: %w", err)
	}
	if open >= ReplaysOpenMax {
		return &ReplayRefusedError{Reason: ReplayTooManyOpen}
	}
	if p.Selection.Missed {
		err := tx.QueryRow(ctx, `
			WITH taken AS (UPDATE dead_letters d SET replay = $2 WHERE d.subscriber = $1 AND `+deadLetterFree+` RETURNING d.sequence)
			SELECT count(*), coalesce(min(sequence), 0), coalesce(max(sequence), 0) FROM taken`, subscriber, p.ID).Scan(&p.Total, &p.First, &p.Last)
		if err != nil {
			return fmt.Errorf("take up dead letters: %w", err)
		}
		if p.Total == 0 { // another one was quicker
			return &ReplayRefusedError{Reason: ReplayEmpty}
		}
		p.After, p.Through = p.First-1, p.Last
	}
	p.Cursor, p.Settled = p.After, []int64{}
	err = tx.QueryRow(ctx, `
		INSERT INTO replays (subscriber, id, selection, after_sequence, through_sequence, total, source, cursor)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $4) RETURNING created_at`,
		subscriber, p.ID, p.Selection, p.After, p.Through, p.Total, p.Source).Scan(&p.CreatedAt)
	if err != nil {
		return fmt.Errorf("insert replay: %w", err)
	}
	_, err = tx.Exec(ctx, `
		DELETE FROM replays WHERE subscriber = $1 AND id IN (
		    SELECT id FROM replays WHERE subscriber = $1 AND NOT `+replayOpen+` ORDER BY id DESC OFFSET $2)`, subscriber, ReplaysFinishedMax)
	if err != nil {
		return fmt.Errorf("remove old replays: %w", err)
	}
	return nil
}

// repeatedReplay returns the replay that the same request made earlier.
func repeatedReplay(ctx context.Context, q querier, r ReplayRequest) (replay Replay, result ControlResult, found bool, err error) {
	if r.RequestID == "" {
		return Replay{}, ControlResult{}, false, nil
	}
	var id int64
	err = q.QueryRow(ctx, `
		SELECT c.version, r.applied_version >= c.version, coalesce((c.args ->> 'replay')::bigint, 0)
		  FROM controls c JOIN runs r ON r.id = c.subscriber WHERE c.request_id = $1 AND NOT r.deleted`,
		control{subscriber: r.Subscriber, requestID: r.RequestID}.storedRequestID()).Scan(&result.Version, &result.InForce, &id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Replay{}, ControlResult{}, false, nil
	}
	if err != nil {
		return Replay{}, ControlResult{}, false, fmt.Errorf("look for the same request: %w", err)
	}
	replay, err = replayOf(ctx, q, r.Subscriber, id, "")
	return replay, result, true, err
}
