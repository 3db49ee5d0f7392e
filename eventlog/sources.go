package eventlog

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// LateSequencesMax is how many sequences a SourceState keeps.
const LateSequencesMax = 1000

// sourceErrorBytesMax bounds what is kept of an error.
const sourceErrorBytesMax = 2000

// Source is the RESO server that a feed follows, and what became of it.
type Source struct {
	// Config has no secrets.
	Config event.Source `json:"config"`
	// Sealed are its secrets, as the store seals them.
	Sealed []byte      `json:"sealed"`
	State  SourceState `json:"state"`
}

// SourceState is what the worker wrote that follows a source.
type SourceState struct {
	// SourceHead is the highest sequence that the source showed.
	SourceHead int64 `json:"source_head"`
	// ReadAt is when the source was last read to its end, or as far as the horizon
	// let it; zero: never yet.
	ReadAt time.Time `json:"read_at"`
	// Error is the fault that is there now; "": none. FailingSince is when it
	// began, RetryAt when the source is read again.
	Error        string    `json:"error"`
	FailingSince time.Time `json:"failing_since"`
	RetryAt      time.Time `json:"retry_at"`
	// Late counts events that came too late to be taken, or whose sequence became
	// another record's. LateAt is when the last one was found, LateSequences are
	// the latest ones found, at most LateSequencesMax.
	Late          int64     `json:"late"`
	LateAt        time.Time `json:"late_at"`
	LateSequences []int64   `json:"late_sequences"`
}

// SourceChange is a change of a feed's source.
type SourceChange struct {
	// Config is the source that the feed has from now on; nil: none.
	Config *event.Source
	// Sealed are its secrets.
	Sealed []byte
}

// sourceColumn reads a feed's source as JSON; NULL: it has none.
const sourceColumn = `(SELECT jsonb_build_object('config', s.config::jsonb, 'sealed', replace(encode(s.secrets, 'base64'), E'\n', ''),
	'state', to_jsonb(s) - 'config' - 'secrets' - 'feed_id')::text FROM feed_sources s WHERE s.feed_id = f.id)`

func decodeSource(text *string) (*Source, error) {
	if text == nil {
		return nil, nil
	}
	s := &Source{}
	if err := json.Unmarshal([]byte(*text), s); err != nil {
		return nil, fmt.Errorf("decode source: %w", err)
	}
	for _, at := range []*time.Time{&s.State.ReadAt, &s.State.FailingSince, &s.State.RetryAt, &s.State.LateAt} {
		*at = at.UTC()
	}
	return s, nil
}

// errSourceNotSupplied refuses a source where the log numbers the events.
func errSourceNotSupplied() event.FieldErrors {
	return event.FieldErrors{{Pointer: "/source", Detail: "is for feeds whose sequences are supplied: they are the source's"}}
}

// changeSource writes a feed's source. What became of the one before is
// forgotten, but for what came late.
func changeSource(ctx context.Context, tx pgx.Tx, name string, change *SourceChange) error {
	if change.Config == nil {
		if _, err := tx.Exec(ctx, `DELETE FROM feed_sources s USING feeds f WHERE f.name = $1 AND s.feed_id = f.id`, name); err != nil {
			return fmt.Errorf("remove source: %w", err)
		}
		return nil
	}
	config, err := json.Marshal(change.Config)
	if err != nil {
		return fmt.Errorf("encode source: %w", err)
	}
	tag, err := tx.Exec(ctx, `INSERT INTO feed_sources (feed_id, config, secrets)
		SELECT f.id, $2, $3 FROM feeds f WHERE f.name = $1 AND f.deleted_at IS NULL AND f.sequences = 'supplied'
		ON CONFLICT (feed_id) DO UPDATE SET config = excluded.config, secrets = excluded.secrets,
			source_head = 0, read_at = NULL, error = '', failing_since = NULL, retry_at = NULL`, name, string(config), change.Sealed)
	if err != nil {
		return fmt.Errorf("write source: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errSourceNotSupplied()
	}
	return nil
}

// SourcedFeeds lists the feeds that follow a source.
func (l *Log) SourcedFeeds(ctx context.Context) ([]Feed, error) {
	rows, _ := l.pool.Query(ctx, `SELECT `+feedColumns+` FROM feed_sources followed JOIN feeds f ON f.id = followed.feed_id
		WHERE f.deleted_at IS NULL ORDER BY f.id`)
	feeds, err := pgx.CollectRows(rows, scanFeed)
	if err != nil {
		return nil, fmt.Errorf("list feeds with a source: %w", err)
	}
	return feeds, nil
}

// NoteSource writes what became of a feed's source, as long as the feed is at the
// version that the source was followed at.
func (l *Log) NoteSource(ctx context.Context, feed Feed, state SourceState) error {
	if len(state.Error) > sourceErrorBytesMax {
		state.Error = state.Error[:sourceErrorBytesMax]
	}
	if n := len(state.LateSequences); n > LateSequencesMax {
		state.LateSequences = state.LateSequences[n-LateSequencesMax:]
	}
	_, err := l.pool.Exec(ctx, `UPDATE feed_sources s SET source_head = $3, read_at = $4, error = $5, failing_since = $6, retry_at = $7,
			late = $8, late_at = $9, late_sequences = coalesce($10, '{}'::bigint[])
		FROM feeds f WHERE s.feed_id = $1 AND f.id = $1 AND f.version = $2`, feed.ID, feed.Version,
		state.SourceHead, nullTime(state.ReadAt), strings.ToValidUTF8(strings.ReplaceAll(state.Error, "\x00", ""), ""), nullTime(state.FailingSince), nullTime(state.RetryAt),
		state.Late, nullTime(state.LateAt), state.LateSequences)
	if err != nil {
		return fmt.Errorf("note source of feed %s: %w", feed.Name, err)
	}
	return nil
}

func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// inTx runs fn in one read-committed transaction.
func (l *Log) inTx(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)
}
