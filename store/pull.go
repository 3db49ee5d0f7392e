package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// PullEventsMax is the most events that one lease has.
const PullEventsMax = 1_000

// PullRequest asks for events of a subscriber of mode pull.
type PullRequest struct {
	Subscriber string
	// Limit is the most events, up to PullEventsMax; Bytes about the most bytes of
	// them. One event always fits.
	Limit, Bytes int
}

// Pulled is what was handed out.
type Pulled struct {
	FeedID int64
	// Lease has the events of Sequences, which rise, until ExpiresAt; uuid.Nil:
	// nothing was handed out.
	Lease     uuid.UUID
	Sequences []int64
	ExpiresAt time.Time
	// Cursor: everything up to it is dealt with. Head is the feed's last event.
	Cursor, Head int64
	// Position is up to where all was looked at.
	Position int64
	// More: there is more to look at above Position. Blocked: something is owed, and
	// in other hands as yet. With neither, all that is owed comes above Position.
	More, Blocked bool
}

// pulling is the locked row of a subscriber with what else a handing out, or a
// commit, goes by.
type pulling struct {
	run         Run
	filter      event.Filter
	pull        event.Pull
	floor, head int64
	leases      []pullLease
	held        []int64 // sequences that wait behind keys that were set aside
}

// pullLease is what was handed out and is not committed.
type pullLease struct {
	id        uuid.UUID
	sequences []int64
	expiresAt time.Time
	over      bool
}

// Pull hands out the next events that a subscriber of mode pull is owed, under a
// lease. What is under a lease, and what is of the same key as something under
// one, is handed out to nobody else; with one lease nothing is, until it is
// committed or over. What a lease that is over has left goes first.
//
// A switch from push is waited for: until the run that held the subscriber has
// ended, Blocked is the answer. What it had set aside behind held keys is handed
// out from then on like everything else.
//
// Errors: ErrNotFound, ErrPushes, *HeldBackError.
func (s *Store) Pull(ctx context.Context, r PullRequest) (Pulled, error) {
	var pulled Pulled
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		p, err := lockPulling(ctx, tx, r.Subscriber)
		if err != nil {
			return err
		}
		pulled = Pulled{FeedID: p.run.FeedID, Cursor: p.run.Cursor, Head: p.head}
		if err := p.mayHandOut(); err != nil {
			return err
		}
		if p.run.Lease != nil || p.run.Moves > 0 || p.liveLeases() >= p.pull.Leases {
			pulled.Blocked = true
			return nil
		}
		return p.handOut(ctx, tx, r, &pulled)
	})
	if err != nil {
		return Pulled{}, fmt.Errorf("hand out events of %s: %w", r.Subscriber, err)
	}
	return pulled, nil
}

// lockPulling locks a subscriber's row and reads what belongs to it. The row is
// locked in a statement before the others: what they read may have been changed
// by whoever had it.
func lockPulling(ctx context.Context, tx pgx.Tx, subscriber string) (*pulling, error) {
	p := &pulling{}
	var batch pgx.Batch // one round trip
	batch.Queue(`SELECT `+runColumns+` FROM runs WHERE id = $1 AND NOT deleted FOR UPDATE`, subscriber).QueryRow(func(row pgx.Row) (err error) {
		p.run, err = scanRun(row)
		return err
	})
	batch.Queue(`
		SELECT coalesce(s.config -> 'filter', '{}'), coalesce(s.config -> 'pull', '{}'), f.floor_sequence, `+feedHead+`
		  FROM subscribers s JOIN feeds f ON f.id = s.feed_id WHERE s.id = $1`, subscriber).QueryRow(func(row pgx.Row) error {
		return row.Scan(&p.filter, &p.pull, &p.floor, &p.head)
	})
	batch.Queue(`SELECT id, sequences, expires_at, expires_at <= clock_timestamp() FROM pull_leases WHERE subscriber = $1`, subscriber).
		Query(func(rows pgx.Rows) (err error) {
			p.leases, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (pullLease, error) {
				var l pullLease
				return l, row.Scan(&l.id, &l.sequences, &l.expiresAt, &l.over)
			})
			return err
		})
	batch.Queue(`SELECT sequence FROM held_events WHERE subscriber = $1 ORDER BY sequence`, subscriber).Query(func(rows pgx.Rows) (err error) {
		p.held, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	err := tx.SendBatch(ctx, &batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("lock row: %w", err)
	}
	if !p.run.Pull {
		return nil, ErrPushes
	}
	return p, nil
}

// mayHandOut refuses while somebody holds the subscriber back. What a consumer
// asked for with Retry-After holds back requests to it, not what it fetches.
func (p *pulling) mayHandOut() error {
	if r := &p.run; r.Disabled || r.HaltedReason != nil || r.PausedNow() {
		state, reason := Describe(r)
		return &HeldBackError{State: state, Reason: reason, For: r.PauseRemaining()}
	}
	return nil
}

func (p *pulling) liveLeases() int {
	n := 0
	for _, l := range p.leases {
		if !l.over {
			n++
		}
	}
	return n
}

// handOut looks for events above the position and makes a lease of them.
func (p *pulling) handOut(ctx context.Context, tx pgx.Tx, r PullRequest, pulled *Pulled) error {
	was := p.run
	if err := p.takeBackHeld(ctx, tx); err != nil {
		return err
	}
	p.skipRemoved()
	scan := newPullScan(p, r)
	if err := scan.run(ctx, tx); err != nil {
		return err
	}
	scan.apply(&p.run)
	pulled.Cursor, pulled.Position, pulled.Head = p.run.Cursor, scan.position, max(p.head, scan.position)
	moved := p.run.Cursor != was.Cursor || p.run.Scanned != was.Scanned || !slices.Equal(p.run.Settled, was.Settled)
	pulled.More = scan.cut && moved
	pulled.Blocked = len(scan.taken) == 0 && len(scan.pending) > 0 && !pulled.More
	var batch pgx.Batch
	if moved {
		batch.Queue(`UPDATE runs SET cursor = $2, settled = $3, scanned = $4 WHERE id = $1`, r.Subscriber, p.run.Cursor, p.run.Settled, p.run.Scanned)
	}
	if len(p.leases) > p.liveLeases() {
		batch.Queue(`DELETE FROM pull_leases WHERE subscriber = $1 AND id = ANY($2)`, r.Subscriber, p.overLeases())
	}
	if len(scan.taken) > 0 {
		pulled.Lease, pulled.Sequences = uuid.New(), scan.taken
		batch.Queue(`INSERT INTO pull_leases (subscriber, id, sequences, expires_at)
			VALUES ($1, $2, $3, clock_timestamp() + $4::interval) RETURNING expires_at`,
			r.Subscriber, pulled.Lease, scan.taken, p.pull.LeaseDuration.Std()).QueryRow(func(row pgx.Row) error { return row.Scan(&pulled.ExpiresAt) })
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("note what is handed out: %w", err)
	}
	return nil
}

func (p *pulling) overLeases() []uuid.UUID {
	var ids []uuid.UUID
	for _, l := range p.leases {
		if l.over {
			ids = append(ids, l.id)
		}
	}
	return ids
}

// takeBackHeld makes the events that wait behind held keys owed again, under their
// own numbers: nobody who fetches would ever see them else.
func (p *pulling) takeBackHeld(ctx context.Context, tx pgx.Tx) error {
	if len(p.held) == 0 {
		return nil
	}
	low, high := min(p.run.Cursor, p.held[0]-1), max(p.run.Cursor, p.run.Scanned)
	dealtWith := mergeRanges([]int64{low + 1, p.run.Cursor}, p.run.Settled)
	p.run.Settled = withoutSequences(dealtWith, p.held)
	p.run.Cursor, p.run.Scanned = low, high
	p.run.advance()
	for _, table := range []string{"held_events", "held_keys"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE subscriber = $1`, p.run.ID); err != nil {
			return fmt.Errorf("take back %s: %w", table, err)
		}
	}
	return nil
}

// skipRemoved moves the position above events that are no longer kept.
func (p *pulling) skipRemoved() {
	if p.floor > p.run.Cursor {
		p.run.Cursor = p.floor
		p.run.Settled = rangesAbove(p.run.Settled, p.floor)
		p.run.advance()
	}
}

// advance moves the cursor over what is dealt with right above it.
func (r *Run) advance() {
	for len(r.Settled) > 0 && r.Settled[0] <= r.Cursor+1 {
		r.Cursor, r.Settled = max(r.Cursor, r.Settled[1]), r.Settled[2:]
	}
}

// DropLease gives back what was handed out under a lease, which nobody got. One
// that is not there any more is no error.
func (s *Store) DropLease(ctx context.Context, subscriber string, lease uuid.UUID) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM pull_leases WHERE subscriber = $1 AND id = $2`, subscriber, lease); err != nil {
		return fmt.Errorf("give back lease of %s: %w", subscriber, err)
	}
	return nil
}

func dropLeases(ctx context.Context, tx pgx.Tx, subscriber string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM pull_leases WHERE subscriber = $1`, subscriber); err != nil {
		return fmt.Errorf("drop leases: %w", err)
	}
	return nil
}
