package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// runnable is the condition under which a subscriber may send: nobody holds it
// back, it is not fetched from, and no wait is in force. It is written over the columns of runs, and
// never NULL, so that it can be negated.
const runnable = `NOT deleted AND NOT disabled AND NOT pull AND halted_reason IS NULL
	AND (NOT paused OR coalesce(paused_until <= clock_timestamp(), false))
	AND (not_before IS NULL OR not_before <= clock_timestamp())`

// Taken is what TakeLease found.
type Taken struct {
	// Run is the row: after the lease was taken, or as it is where it was not.
	Run Run
	// Held reports that the caller now holds the lease.
	Held bool
	// Stale reports that another lease stood on an unparked row: its holder may
	// still start requests for one second.
	Stale bool
}

// TakeLease makes lease the one holder of the subscriber if it is runnable:
// whoever held it before is fenced. A pause that ended by itself is cleared,
// and every accepted control is in force with it. Where the subscriber is not
// runnable the row is returned as it is, not held.
//
// Controls that move the position, or what is set aside, and are not applied yet
// are applied first, also where the subscriber is not runnable. A lease that
// stands on such a row is taken away then, as ForceUnheld does: its holder must
// not write over what was moved.
//
// Errors: ErrNotFound.
func (s *Store) TakeLease(ctx context.Context, subscriber string, lease uuid.UUID) (Taken, error) {
	// A row that changes between the two statements is looked at again; each
	// round needs somebody else's commit, so a few rounds are plenty.
	const rounds = 5
	var taken Taken
	for range rounds {
		var err error
		taken, err = takeOnce(ctx, s.pool, subscriber, lease)
		if err == nil || !errors.Is(err, pgx.ErrNoRows) {
			return taken, err
		}
		run, err := s.Run(ctx, subscriber)
		if err != nil {
			return Taken{}, err
		}
		if run.Moves > 0 && !run.Deleted {
			return s.takeMoved(ctx, subscriber, lease)
		}
		if !run.Runnable() {
			return Taken{Run: run, Stale: run.Lease != nil && !run.Parked}, nil
		}
	}
	return Taken{}, fmt.Errorf("take lease of %s: the row kept changing", subscriber)
}

func takeOnce(ctx context.Context, q querier, subscriber string, lease uuid.UUID) (Taken, error) {
	rows, err := q.Query(ctx, `
		WITH old AS (
		    SELECT id, lease AS old_lease, parked AS old_parked FROM runs WHERE id = $1 FOR UPDATE
		), taken AS (
		    UPDATE runs r SET lease = $2, checkpoint = 0, parked = false, applied_version = desired_version, checked_at = clock_timestamp(),
		           paused = false, paused_until = NULL, pause_reason = NULL, wake_at = NULL
		      FROM old
		     WHERE r.id = old.id AND moves = 0 AND `+runnable+`
		    RETURNING r.*, old_lease IS NOT NULL AND NOT old_parked AS stale
		), applied AS (
		    UPDATE controls c SET applied_at = clock_timestamp() FROM taken t
		     WHERE c.subscriber = t.id AND c.applied_at IS NULL AND c.version <= t.desired_version
		)
		SELECT `+runColumns+`, stale FROM taken`, subscriber, lease)
	if err != nil {
		return Taken{}, fmt.Errorf("take lease of %s: %w", subscriber, err)
	}
	return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Taken, error) {
		t := Taken{Held: true}
		var err error
		t.Run, err = scanRun(row, &t.Stale)
		return t, err
	})
}

// takeMoved is takeOnce for a row that has to be moved first.
func (s *Store) takeMoved(ctx context.Context, subscriber string, lease uuid.UUID) (Taken, error) {
	var taken Taken
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if err := lockForControl(ctx, tx, subscriber); err != nil {
			return err
		}
		if err := applyMoves(ctx, tx, subscriber); err != nil {
			return err
		}
		var err error
		if taken, err = takeOnce(ctx, tx, subscriber, lease); err == nil || !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if taken.Run, err = readRun(ctx, tx, subscriber); err != nil {
			return err
		}
		if taken.Stale = taken.Run.Lease != nil && !taken.Run.Parked; !taken.Stale {
			return nil
		}
		_, err = tx.Exec(ctx, `UPDATE runs SET lease = $2 WHERE id = $1`, subscriber, fencedLease)
		return err
	})
	if err != nil {
		return Taken{}, fmt.Errorf("take lease of %s: %w", subscriber, err)
	}
	return taken, nil
}

// fencedLease stands on a row whose holder was fenced and may still start
// requests for a second. It is nobody's lease: whoever takes the row meanwhile
// finds it stale and waits, and a control is not in force yet.
var fencedLease = uuid.Max

// ForceUnheld fences whoever holds the lease of a subscriber that is not
// runnable. The first call (settle false) takes the lease away; a second one
// (settle true), made at least a second later, gives the row free and puts the
// accepted controls in force, but for those that move something, which the next
// TakeLease applies: by then the old holder can start no request any more. Where the second call never comes, or the row was taken in between, the
// taker does what it would have done.
func (s *Store) ForceUnheld(ctx context.Context, subscriber string, settle bool) error {
	_, err := s.pool.Exec(ctx, `
		WITH forced AS (
		    UPDATE runs SET lease = CASE WHEN $2 THEN NULL ELSE $3::uuid END, parked = false, checked_at = clock_timestamp(),
		           applied_version = CASE WHEN $2 THEN desired_version ELSE applied_version END
		     WHERE id = $1 AND CASE WHEN $2 THEN lease = $3 ELSE NOT (`+runnable+`) END
		    RETURNING id, applied_version
		)
		UPDATE controls c SET applied_at = clock_timestamp() FROM forced f
		 WHERE c.subscriber = f.id AND c.applied_at IS NULL AND c.version <= f.applied_version AND NOT `+moving, subscriber, settle, fencedLease)
	if err != nil {
		return fmt.Errorf("fence holder of %s: %w", subscriber, err)
	}
	return nil
}

// Lease is a subscriber and the lease of one of its runs.
type Lease struct {
	Subscriber string
	ID         uuid.UUID
}

// Confirm reads the version of the last accepted control of each subscriber that
// its lease still holds; those that it does not hold are left out.
func (s *Store) Confirm(ctx context.Context, leases []Lease) (map[Lease]int64, error) {
	subscribers, ids := make([]string, len(leases)), make([]uuid.UUID, len(leases))
	for i, l := range leases {
		subscribers[i], ids[i] = l.Subscriber, l.ID
	}
	rows, _ := s.pool.Query(ctx, `
		SELECT r.id, r.lease, r.desired_version
		  FROM unnest($1::text[], $2::uuid[]) AS c (id, lease) JOIN runs r ON r.id = c.id AND r.lease = c.lease
		 WHERE NOT r.parked AND NOT r.deleted`, subscribers, ids)
	held := make(map[Lease]int64, len(leases))
	var l Lease
	var desired int64
	_, err := pgx.ForEachRow(rows, []any{&l.Subscriber, &l.ID, &desired}, func() error {
		held[l] = desired
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("confirm %d leases: %w", len(leases), err)
	}
	return held, nil
}
