package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postroad/event"
)

// RetentionMin is the shortest time that events can be kept.
const RetentionMin = time.Minute

// Retention is how long a feed keeps its events. The zero value: for ever.
type Retention struct {
	// Age: events older than that are removed once no subscriber is owed them;
	// one that is paused, halted or disabled is owed them as well. 0: never.
	Age time.Duration
	// HardAge: events older than that are removed whoever is owed them. At least
	// Age; 0: never.
	HardAge time.Duration
	// CompactAfter: events older than that are removed where a newer event of the
	// same record is older than that too, once no subscriber is owed them. 0: none.
	CompactAfter time.Duration
}

// retentionConstraint is the table's own check of what check checks.
const retentionConstraint = "feeds_retention"

func (r Retention) check(errs *event.FieldErrors) {
	checkAge(errs, "/retention/age", r.Age)
	checkAge(errs, "/retention/hardAge", r.HardAge)
	checkAge(errs, "/retention/compactAfter", r.CompactAfter)
	if r.HardAge >= RetentionMin && r.HardAge < r.Age {
		errs.Add("/retention/hardAge", hardAgeDetail)
	}
}

func checkAge(errs *event.FieldErrors, pointer string, age time.Duration) {
	if age != 0 && age < RetentionMin {
		errs.Addf(pointer, fmt.Sprintf("must be at least %s, or absent", event.Duration(RetentionMin)))
	}
}

const hardAgeDetail = "must not be shorter than age"

func hardAgeTooShort() error {
	var errs event.FieldErrors
	errs.Add("/retention/hardAge", hardAgeDetail)
	return errs.Err()
}

func (p FeedPatch) validate() error {
	var errs event.FieldErrors
	if p.Description != nil {
		checkDescription(&errs, *p.Description)
	}
	var r Retention
	if p.Age != nil {
		r.Age = *p.Age
	}
	if p.HardAge != nil {
		r.HardAge = *p.HardAge
	}
	if p.CompactAfter != nil {
		r.CompactAfter = *p.CompactAfter
	}
	r.check(&errs)
	return errs.Err()
}

func milliseconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}

func violates(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.ConstraintName == constraint
}

// dueFeed is a feed whose oldest event is older than it is to be kept.
type dueFeed struct {
	id        int64
	name      string
	floor     int64
	age, hard int64 // milliseconds, 0: never
}

// Retain raises the floors of feeds whose events are older than they are to be
// kept: from then on no read shows them, and ReapDeleted removes them. It passes
// over at most that many events a transaction where subscribers lose some. What it
// could not do for one feed keeps it from no other.
func (l *Log) Retain(ctx context.Context, most int) error {
	const pageMax = 1_000
	var failed []error
	for after := int64(0); ; {
		rows, _ := l.pool.Query(ctx, `
			SELECT f.id, f.name, f.floor_sequence, coalesce(f.retention_age_ms, 0), coalesce(f.retention_hard_age_ms, 0)
			FROM feeds f CROSS JOIN LATERAL (
				SELECT e.recorded_at FROM events e WHERE e.feed_id = f.id AND e.sequence > f.floor_sequence
				ORDER BY e.sequence LIMIT 1) oldest
			WHERE f.id > $1 AND f.deleted_at IS NULL AND (f.retention_age_ms IS NOT NULL OR f.retention_hard_age_ms IS NOT NULL)
				AND oldest.recorded_at < clock_timestamp()
					- least(f.retention_age_ms, f.retention_hard_age_ms) * interval '1 millisecond'
			ORDER BY f.id LIMIT $2`, after, pageMax)
		due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (dueFeed, error) {
			var d dueFeed
			return d, row.Scan(&d.id, &d.name, &d.floor, &d.age, &d.hard)
		})
		if err != nil {
			return errors.Join(append(failed, fmt.Errorf("list feeds with old events: %w", err))...)
		}
		for _, d := range due {
			after = d.id
			if err := l.retain(ctx, d, most); err != nil {
				failed = append(failed, fmt.Errorf("raise floor of feed %s: %w", d.name, err))
			}
		}
		if len(due) < pageMax || ctx.Err() != nil {
			return errors.Join(failed...)
		}
	}
}

func (l *Log) retain(ctx context.Context, d dueFeed, most int) error {
	soft, err := l.cut(ctx, d.id, d.floor, d.age)
	if err != nil {
		return err
	}
	hard, err := l.cut(ctx, d.id, d.floor, d.hard)
	if err != nil {
		return err
	}
	for {
		raised, more, err := l.raiseFloor(ctx, d, soft, hard, most)
		if raised {
			l.notifier.note(d.id)
		}
		if err != nil || !more {
			return err
		}
	}
}

// cut returns the highest number of an event that is older than age, in
// milliseconds; floor where there is none. recorded_at rises with the numbers,
// so it is found by halving.
func (l *Log) cut(ctx context.Context, feed, floor, age int64) (int64, error) {
	if age == 0 {
		return floor, nil
	}
	old, young := floor, int64(math.MaxInt64)
	for young-old > 1 {
		middle := old + (young-old)/2
		var sequence int64
		var is bool
		err := l.pool.QueryRow(ctx, `
			SELECT e.sequence, e.recorded_at < clock_timestamp() - $4::bigint * interval '1 millisecond'
			FROM events e WHERE e.feed_id = $1 AND e.sequence >= $2 AND e.sequence < $3 ORDER BY e.sequence LIMIT 1`,
			feed, middle, young, age).Scan(&sequence, &is)
		switch {
		case errors.Is(err, pgx.ErrNoRows) || err == nil && !is:
			young = middle
		case err != nil:
			return 0, fmt.Errorf("look for the age of events: %w", err)
		default:
			old = sequence
		}
	}
	return old, nil
}

// raiseFloor raises a feed's floor to soft, but never past the lowest low-water
// mark of its subscribers, and past that to hard: then by most events at a time, and
// what each subscriber loses by it is noted in the same transaction. The feed's
// row is locked, so that no subscriber can begin below the floor meanwhile;
// appends do not wait for it.
func (l *Log) raiseFloor(ctx context.Context, d dueFeed, soft, hard int64, most int) (raised, more bool, err error) {
	var losses []loss
	err = pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		// Whoever creates a subscriber waits meanwhile: better to come again.
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
			return err
		}
		var floor, low int64
		err := tx.QueryRow(ctx, `
			SELECT floor_sequence FROM feeds WHERE id = $1 AND deleted_at IS NULL AND coalesce(retention_age_ms, 0) = $2
				AND coalesce(retention_hard_age_ms, 0) = $3 FOR NO KEY UPDATE`, d.id, d.age, d.hard).Scan(&floor)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // changed meanwhile: the next round goes by what it is now
		}
		if err != nil {
			return fmt.Errorf("lock feed: %w", err)
		}
		// A later statement than the lock: it sees every subscriber that was made
		// before it.
		if low, err = lowWaterOf(ctx, tx, d.id); err != nil {
			return err
		}
		target := max(floor, min(low, max(soft, hard)))
		if hard > target {
			if target, losses, err = lose(ctx, tx, d.id, target, hard, most); err != nil {
				return err
			}
			more = floor < target && target < hard
		}
		if raised = target > floor; !raised {
			return nil
		}
		_, err = tx.Exec(ctx, `UPDATE feeds SET floor_sequence = $2, changed = pg_current_xact_id() WHERE id = $1`, d.id, target)
		return err
	})
	if err != nil {
		return false, false, err
	}
	for _, s := range losses {
		l.config.Logger.WarnContext(ctx, "events removed before they were delivered",
			"feed", d.name, "subscriber", s.subscriber, "events", s.events, "through", s.through)
	}
	return raised, more, nil
}
