package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postroad/event"
)

// DefaultFeed is the name of the feed that always exists.
const DefaultFeed = "default"

// SystemFeed is event.SystemFeed; it always exists too.
const SystemFeed = event.SystemFeed

// Who numbers the events of a feed.
const (
	SequencesAssigned = "assigned" // the log, from 1 without gaps
	SequencesSupplied = "supplied" // the producer, rising, gaps allowed
)

// Feed is one log.
type Feed struct {
	// ID names the feed inside the database; it outlives deletion.
	ID   int64
	Name string
	// Epoch counts how often the name was made; 2 and up: it was deleted before.
	Epoch int
	// Sequences is SequencesAssigned or SequencesSupplied, fixed at creation.
	Sequences   string
	Description string
	// Retention is how long events are kept.
	Retention Retention
	// Source is the server that the feed follows; nil: none.
	Source *Source
	// FloorSequence: events at or below it are no longer kept.
	FloorSequence int64
	// CompactedThrough: of the events up to it each record has its newest one only;
	// 0: nothing that is kept was compacted.
	CompactedThrough int64
	// Head is the highest number ever used, when the feed was read.
	Head      int64
	CreatedAt time.Time
	// Version rises with each change of the feed's configuration.
	Version int64
}

// FeedSpec is what a feed is made of.
type FeedSpec struct {
	// Name is [a-z0-9][a-z0-9-]{0,62}.
	Name string
	// Sequences is SequencesAssigned (default) or SequencesSupplied.
	Sequences string
	// Description is the operator's own words, up to
	// event.DescriptionCharactersMax characters.
	Description string
	// Retention is how long events are kept.
	Retention Retention
	// Source, where set, is what the feed follows.
	Source *SourceChange
}

// FeedPatch is what may be changed of a feed; nil leaves a member alone.
type FeedPatch struct {
	Description *string
	// Age, HardAge and CompactAfter change the feed's Retention; 0: never.
	Age, HardAge, CompactAfter *time.Duration
	// Source changes what the feed follows.
	Source *SourceChange
	// IfVersion, where set, refuses the change unless the feed is at it.
	IfVersion *int64
}

func (s FeedSpec) validate() error {
	var errs event.FieldErrors
	if !event.ValidFeedName(s.Name) {
		errs.Add("/name", "must be 1-63 lower-case letters, digits or -, and start with a letter or digit")
	}
	if s.Sequences != SequencesAssigned && s.Sequences != SequencesSupplied {
		errs.Add("/sequences", "must be assigned or supplied")
	}
	checkDescription(&errs, s.Description)
	s.Retention.check(&errs)
	if s.Source != nil && s.Sequences != SequencesSupplied {
		errs = append(errs, errSourceNotSupplied()...)
	}
	return errs.Err()
}

func checkDescription(errs *event.FieldErrors, s string) {
	if utf8.RuneCountInString(s) > event.DescriptionCharactersMax {
		errs.Addf("/description", fmt.Sprintf("must not be longer than %d characters", event.DescriptionCharactersMax))
	}
}

// compactedThrough is where the compacted part of a feed f ends, 0 where nothing
// that is kept was compacted.
const compactedThrough = `CASE WHEN f.compacted_through > f.floor_sequence THEN f.compacted_through ELSE 0 END`

// feedColumns reads a Feed; the head costs one probe of the primary key.
const feedColumns = `f.id, f.name, f.epoch, f.sequences, f.description, f.floor_sequence,
	greatest(f.floor_sequence, (SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id)), f.created_at, f.version,
	coalesce(f.retention_age_ms, 0), coalesce(f.retention_hard_age_ms, 0), coalesce(f.compact_after_ms, 0), ` + compactedThrough + `, ` + sourceColumn

func scanFeed(row pgx.CollectableRow) (Feed, error) {
	var f Feed
	var age, hardAge, compactAfter int64
	var source *string
	err := row.Scan(&f.ID, &f.Name, &f.Epoch, &f.Sequences, &f.Description, &f.FloorSequence, &f.Head, &f.CreatedAt, &f.Version,
		&age, &hardAge, &compactAfter, &f.CompactedThrough, &source)
	if err == nil {
		f.Source, err = decodeSource(source)
	}
	f.Retention = Retention{
		Age: time.Duration(age) * time.Millisecond, HardAge: time.Duration(hardAge) * time.Millisecond,
		CompactAfter: time.Duration(compactAfter) * time.Millisecond,
	}
	f.CreatedAt = f.CreatedAt.UTC()
	return f, err
}

// CreateFeed makes a feed. A name that was deleted goes on above its old head,
// with the next epoch. Errors: event.FieldErrors, ErrExists.
func (l *Log) CreateFeed(ctx context.Context, spec FeedSpec) (Feed, error) {
	setDefault(&spec.Sequences, SequencesAssigned)
	if err := spec.validate(); err != nil {
		return Feed{}, err
	}
	err := l.inTx(ctx, func(tx pgx.Tx) error { return createFeed(ctx, tx, spec) })
	if faults := event.FieldErrors(nil); errors.As(err, &faults) {
		return Feed{}, faults
	}
	if err != nil {
		return Feed{}, fmt.Errorf("create feed %s: %w", spec.Name, err)
	}
	return l.Feed(ctx, spec.Name)
}

func createFeed(ctx context.Context, tx pgx.Tx, spec FeedSpec) error {
	tag, err := tx.Exec(ctx, `
		INSERT INTO feeds AS f (name, sequences, description, retention_age_ms, retention_hard_age_ms, compact_after_ms)
		VALUES ($1, $2, $3, nullif($4::bigint, 0), nullif($5::bigint, 0), nullif($6::bigint, 0))
		ON CONFLICT (name) DO UPDATE
			SET sequences = excluded.sequences, description = excluded.description, epoch = f.epoch + 1,
			    retention_age_ms = excluded.retention_age_ms, retention_hard_age_ms = excluded.retention_hard_age_ms,
			    compact_after_ms = excluded.compact_after_ms,
			    version = f.version + 1, created_at = greatest(clock_timestamp(), f.deleted_at), deleted_at = NULL
			WHERE f.deleted_at IS NOT NULL`, spec.Name, spec.Sequences, spec.Description,
		spec.Retention.Age.Milliseconds(), spec.Retention.HardAge.Milliseconds(), spec.Retention.CompactAfter.Milliseconds())
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return ErrExists
	}
	if spec.Source == nil {
		return nil
	}
	return changeSource(ctx, tx, spec.Name, spec.Source)
}

// Feed reads a feed by name. Errors: ErrNotFound.
func (l *Log) Feed(ctx context.Context, name string) (Feed, error) {
	rows, _ := l.pool.Query(ctx, `SELECT `+feedColumns+` FROM feeds f WHERE f.name = $1 AND f.deleted_at IS NULL`, name)
	feed, err := pgx.CollectExactlyOneRow(rows, scanFeed)
	if errors.Is(err, pgx.ErrNoRows) {
		return Feed{}, fmt.Errorf("feed %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return Feed{}, fmt.Errorf("read feed %s: %w", name, err)
	}
	return feed, nil
}

// Feeds lists up to limit feeds whose name comes after the one named, by name
// in byte order.
func (l *Log) Feeds(ctx context.Context, after string, limit int) ([]Feed, error) {
	rows, _ := l.pool.Query(ctx, `SELECT `+feedColumns+` FROM feeds f
		WHERE f.name > $1 AND f.deleted_at IS NULL ORDER BY f.name LIMIT $2`, after, limit)
	feeds, err := pgx.CollectRows(rows, scanFeed)
	if err != nil {
		return nil, fmt.Errorf("list feeds: %w", err)
	}
	return feeds, nil
}

// UpdateFeed changes a feed's configuration. Errors: event.FieldErrors,
// ErrNotFound, ErrVersionMismatch.
func (l *Log) UpdateFeed(ctx context.Context, name string, patch FeedPatch) (Feed, error) {
	if err := patch.validate(); err != nil {
		return Feed{}, err
	}
	var tag pgconn.CommandTag
	err := l.inTx(ctx, func(tx pgx.Tx) (err error) {
		tag, err = tx.Exec(ctx, `
			UPDATE feeds SET description = coalesce($2, description), version = version + 1,
				retention_age_ms = CASE WHEN $4::bigint IS NULL THEN retention_age_ms ELSE nullif($4::bigint, 0) END,
				retention_hard_age_ms = CASE WHEN $5::bigint IS NULL THEN retention_hard_age_ms ELSE nullif($5::bigint, 0) END,
				compact_after_ms = CASE WHEN $6::bigint IS NULL THEN compact_after_ms ELSE nullif($6::bigint, 0) END
			WHERE name = $1 AND deleted_at IS NULL AND version = coalesce($3, version)`,
			name, patch.Description, patch.IfVersion, milliseconds(patch.Age), milliseconds(patch.HardAge), milliseconds(patch.CompactAfter))
		if err != nil || tag.RowsAffected() == 0 || patch.Source == nil {
			return err
		}
		return changeSource(ctx, tx, name, patch.Source)
	})
	if faults := event.FieldErrors(nil); errors.As(err, &faults) {
		return Feed{}, faults
	}
	if violates(err, retentionConstraint) {
		return Feed{}, hardAgeTooShort() // together with the one that was stored
	}
	if err != nil {
		return Feed{}, fmt.Errorf("update feed %s: %w", name, err)
	}
	feed, err := l.Feed(ctx, name)
	if err == nil && tag.RowsAffected() == 0 {
		return Feed{}, fmt.Errorf("feed %s is at version %d: %w", name, feed.Version, ErrVersionMismatch)
	}
	return feed, err
}

// DeleteFeed removes a feed that no subscriber follows: its events are hidden
// at once and removed by ReapDeleted. Errors: ErrNotFound, ErrProtectedFeed,
// ErrFeedInUse.
func (l *Log) DeleteFeed(ctx context.Context, name string) error {
	if name == DefaultFeed || name == SystemFeed {
		return ErrProtectedFeed
	}
	err := pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		return deleteFeed(ctx, tx, name)
	})
	if err != nil {
		return fmt.Errorf("delete feed %s: %w", name, err)
	}
	return nil
}

func deleteFeed(ctx context.Context, tx pgx.Tx, name string) error {
	// The row lock waits for subscribers that are being made: their foreign key
	// holds the row. Each statement below it sees what they committed.
	var id int64
	err := tx.QueryRow(ctx, `SELECT id FROM feeds WHERE name = $1 AND deleted_at IS NULL FOR UPDATE`, name).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("lock feed: %w", err)
	}
	var used bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM subscribers WHERE feed_id = $1)
		OR EXISTS (SELECT FROM runs WHERE feed_id = $1)`, id).Scan(&used)
	if err != nil {
		return fmt.Errorf("look for subscribers: %w", err)
	}
	if used {
		return ErrFeedInUse
	}
	if _, err := tx.Exec(ctx, `DELETE FROM feed_sources WHERE feed_id = $1`, id); err != nil {
		return fmt.Errorf("remove source: %w", err)
	}
	if _, err := tx.Exec(ctx, `SELECT lock_feed($1)`, id); err != nil {
		return fmt.Errorf("lock log: %w", err)
	}
	// deleted_at carries the clock on: recorded_at never goes back in a name.
	_, err = tx.Exec(ctx, `
		UPDATE feeds f SET floor_sequence = greatest(f.floor_sequence, last.sequence),
			deleted_at = greatest(clock_timestamp(), last.recorded_at), version = f.version + 1,
			changed = pg_current_xact_id()
		FROM (SELECT max(sequence) AS sequence, max(recorded_at) AS recorded_at FROM
			(SELECT sequence, recorded_at FROM events WHERE feed_id = $1 ORDER BY sequence DESC LIMIT 1) newest) last
		WHERE f.id = $1`, id)
	if err != nil {
		return fmt.Errorf("mark feed as deleted: %w", err)
	}
	return nil
}

// Epochs returns the epochs of those of the feeds that are not deleted.
func (l *Log) Epochs(ctx context.Context, ids []int64) (map[int64]int, error) {
	rows, _ := l.pool.Query(ctx, `SELECT id, epoch FROM feeds WHERE id = ANY ($1::bigint[]) AND deleted_at IS NULL`, ids)
	epochs := map[int64]int{}
	var id int64
	var epoch int
	if _, err := pgx.ForEachRow(rows, []any{&id, &epoch}, func() error {
		epochs[id] = epoch
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read epochs of feeds: %w", err)
	}
	return epochs, nil
}
