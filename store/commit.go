package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// CommitRequest says that events that were handed out are dealt with.
type CommitRequest struct {
	Subscriber string
	// Sequence is the last of them: all of the lease up to it are.
	Sequence int64
	// Lease is what they were handed out under. The zero value means the only one
	// that there is, for a subscriber of one lease.
	Lease uuid.UUID
}

// Committed is what a commit came to.
type Committed struct {
	// Cursor: everything up to it is dealt with.
	Cursor int64
	// Events is how many the commit dealt with; 0: they were before.
	Events int
	// ExpiresAt is until when what is left of the lease is nobody else's; nil:
	// nothing is left.
	ExpiresAt *time.Time
}

// Commit deals with what was handed out under a lease, up to a sequence. What is
// left of the lease is the consumer's for another LeaseDuration. To commit what is
// dealt with already changes nothing. A hold does not keep from committing.
//
// Errors: ErrNotFound, ErrPushes, ErrLeaseWanted, ErrLeaseOver, *NotHandedOutError.
func (s *Store) Commit(ctx context.Context, r CommitRequest) (Committed, error) {
	var done Committed
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		p, err := lockPulling(ctx, tx, r.Subscriber)
		if err != nil {
			return err
		}
		done = Committed{Cursor: p.run.Cursor}
		lease, err := p.leaseOf(r)
		if err != nil || lease == nil {
			return err
		}
		through, _ := slices.BinarySearch(lease.sequences, r.Sequence+1)
		if done.Events = through; through == 0 {
			return nil
		}
		p.run.Settled = mergeRanges(p.run.Settled, rangesOf(lease.sequences[:through]))
		p.run.advance()
		done.Cursor = p.run.Cursor
		return p.settle(ctx, tx, lease.id, lease.sequences[through:], &done)
	})
	if err != nil {
		return Committed{}, fmt.Errorf("commit events of %s: %w", r.Subscriber, err)
	}
	return done, nil
}

// leaseOf finds the lease that a commit is about; nil: there is nothing left to do.
func (p *pulling) leaseOf(r CommitRequest) (*pullLease, error) {
	dealtWith := r.Sequence <= p.run.Cursor || inRanges(p.run.Settled, r.Sequence)
	var lease *pullLease
	for i, l := range p.leases {
		if l.id == r.Lease || r.Lease == uuid.Nil {
			lease = &p.leases[i]
		}
	}
	switch {
	case r.Lease == uuid.Nil && !dealtWith && (p.pull.Leases > 1 || len(p.leases) > 1):
		return nil, ErrLeaseWanted
	case lease == nil && dealtWith, r.Lease == uuid.Nil && dealtWith:
		return nil, nil //nolint:nilnil // that nothing is left to do is an answer
	case lease == nil && r.Lease != uuid.Nil:
		return nil, ErrLeaseOver
	case lease == nil:
		return nil, &NotHandedOutError{Sequence: r.Sequence}
	}
	first, last := lease.sequences[0], lease.sequences[len(lease.sequences)-1]
	if r.Sequence > last || r.Sequence < first && !dealtWith {
		return nil, &NotHandedOutError{Sequence: r.Sequence, First: first, Last: last}
	}
	return lease, nil
}

// settle writes the position, and what is left of the lease.
func (p *pulling) settle(ctx context.Context, tx pgx.Tx, lease uuid.UUID, left []int64, done *Committed) error {
	var batch pgx.Batch
	batch.Queue(`UPDATE runs SET cursor = $2, settled = $3, last_delivered_at = clock_timestamp() WHERE id = $1`,
		p.run.ID, p.run.Cursor, p.run.Settled)
	if len(left) == 0 {
		batch.Queue(`DELETE FROM pull_leases WHERE subscriber = $1 AND id = $2`, p.run.ID, lease)
	} else {
		batch.Queue(`UPDATE pull_leases SET sequences = $3, expires_at = clock_timestamp() + $4::interval
			WHERE subscriber = $1 AND id = $2 RETURNING expires_at`, p.run.ID, lease, left, p.pull.LeaseDuration.Std()).
			QueryRow(func(row pgx.Row) error { return row.Scan(&done.ExpiresAt) })
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("move position: %w", err)
	}
	return nil
}
