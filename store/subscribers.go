package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// SubscribersMax is the most subscribers that List returns at once.
const SubscribersMax = 1000

// SigningSecretsMax is how many signing secrets a subscriber keeps: the current
// one and those whose overlap still runs.
const SigningSecretsMax = 5

// Record is a stored subscriber.
type Record struct {
	// Subscriber is the configuration, without secrets but marked with them.
	Subscriber event.Subscriber
	// Version counts the configuration's changes from 1: the ETag.
	Version int64
	// FeedID, FeedName and FeedEpoch say which feed it is owed.
	FeedID    int64
	FeedName  string
	FeedEpoch int
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Loaded is what a delivering run needs to know of a subscriber.
type Loaded struct {
	Record
	// Secrets are unsealed; signing secrets whose overlap is over are left out.
	Secrets event.Secrets
	// SigningValidFor says how much longer each of Secrets.Signing is valid, by
	// PostgreSQL's clock; 0: without end.
	SigningValidFor []time.Duration
	// Now is PostgreSQL's clock when the row was read.
	Now time.Time
	// FeedFloor: events at or below it are no longer kept. LostThrough is the last
	// matching event that was removed before it was settled, 0: none.
	FeedFloor, LostThrough int64
	// FeedHead is the feed's last event.
	FeedHead int64
	// Held are the keys that are set aside, HeldEvents is how many events wait
	// behind them, DeadLetters how many were given up.
	Held        []HeldKey
	HeldEvents  int
	DeadLetters int
	// Replay is the one to serve before new events: the first that is open and
	// not paused; nil: none.
	Replay *Replay
}

// ListFilter selects subscribers; empty members select all.
type ListFilter struct {
	// Feed is a feed's name.
	Feed string
	// Owner is compared whole.
	Owner string
}

// selectRecords reads records of living subscribers, for scanRecord.
const selectRecords = `SELECT s.config, s.version, s.feed_id, f.name, f.epoch, s.created_at, s.updated_at
	FROM subscribers s JOIN runs r ON r.id = s.id JOIN feeds f ON f.id = s.feed_id
	WHERE NOT r.deleted`

// scanRecord reads a row of selectRecords, and more columns into the given
// places.
func scanRecord(row pgx.Row, more ...any) (Record, error) {
	var r Record
	var config []byte
	targets := []any{&config, &r.Version, &r.FeedID, &r.FeedName, &r.FeedEpoch, &r.CreatedAt, &r.UpdatedAt}
	if err := row.Scan(append(targets, more...)...); err != nil {
		return Record{}, err
	}
	if err := json.Unmarshal(config, &r.Subscriber); err != nil {
		return Record{}, fmt.Errorf("decode configuration: %w", err)
	}
	if r.Subscriber.Mode == "" {
		r.Subscriber.Mode = event.ModePush // stored by a release that knew no other
	}
	return r, nil
}

// Get reads a subscriber. Errors: ErrNotFound, for a tombstone too.
func (s *Store) Get(ctx context.Context, id string) (Record, error) {
	r, err := scanRecord(s.pool.QueryRow(ctx, selectRecords+` AND s.id = $1`, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, ErrNotFound
	}
	if err != nil {
		return Record{}, fmt.Errorf("read subscriber %s: %w", id, err)
	}
	return r, nil
}

// List reads subscribers with an id above after, in order of id, at most limit
// and never more than SubscribersMax of them.
func (s *Store) List(ctx context.Context, filter ListFilter, after string, limit int) ([]Record, error) {
	scan := func(row pgx.CollectableRow) (Record, error) { return scanRecord(row) }
	return collect(ctx, s, "list subscribers", scan, selectRecords+`
		AND s.id > $1 AND ($2 = '' OR f.name = $2) AND ($3 = '' OR s.config ->> 'owner' = $3)
		ORDER BY s.id LIMIT $4`, after, filter.Feed, filter.Owner, clampLimit(limit, SubscribersMax))
}

func clampLimit(limit, most int) int { return max(1, min(limit, most)) }

// CountByFeed counts the subscribers of a feed, tombstones left out.
func (s *Store) CountByFeed(ctx context.Context, feedID int64) (int64, error) {
	var n int64
	err := s.pool.QueryRow(ctx, `SELECT count(*) FROM runs WHERE feed_id = $1 AND NOT deleted`, feedID).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count subscribers of feed %d: %w", feedID, err)
	}
	return n, nil
}

// Versions returns the configuration's version of those of the subscribers named
// that are there, tombstones left out.
func (s *Store) Versions(ctx context.Context, ids []string) (map[string]Version, error) {
	rows, _ := s.pool.Query(ctx, `SELECT s.id, s.version, s.created_at FROM subscribers s JOIN runs r ON r.id = s.id
		WHERE NOT r.deleted AND s.id = ANY ($1)`, ids)
	versions := map[string]Version{}
	var id string
	var v Version
	if _, err := pgx.ForEachRow(rows, []any{&id, &v.Number, &v.CreatedAt}, func() error {
		versions[id] = v
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read versions of subscribers: %w", err)
	}
	return versions, nil
}

// Version is that of a subscriber's configuration.
type Version struct {
	Number int64
	// CreatedAt tells a subscriber from a later one under its id, of which the
	// numbers are the same.
	CreatedAt time.Time
}

// loadRecord reads what Load does, but for held keys and the replay.
const loadRecord = `SELECT s.config, s.version, s.feed_id, f.name, f.epoch, s.created_at, s.updated_at, s.secrets, clock_timestamp(),
		f.floor_sequence, r.lost_through, ` + feedHead + `,
		(SELECT count(*) FROM held_events h WHERE h.subscriber = s.id), (SELECT count(*) FROM dead_letters d WHERE d.subscriber = s.id)
	FROM subscribers s JOIN runs r ON r.id = s.id JOIN feeds f ON f.id = s.feed_id
	WHERE NOT r.deleted AND s.id = $1`

// Load reads a subscriber with its secrets and what is set aside of it, in one
// round trip. Errors: ErrNotFound, ErrNoSealer, ErrWrongKey, ErrSealBroken.
func (s *Store) Load(ctx context.Context, id string) (Loaded, error) {
	var l Loaded
	var sealed []byte
	var batch pgx.Batch
	batch.Queue(loadRecord, id).QueryRow(func(row pgx.Row) (err error) {
		l.Record, err = scanRecord(row, &sealed, &l.Now, &l.FeedFloor, &l.LostThrough, &l.FeedHead, &l.HeldEvents, &l.DeadLetters)
		return err
	})
	batch.Queue(heldKeys+` LIMIT $4`, id, "", "", HeldKeysMax).Query(func(rows pgx.Rows) (err error) {
		l.Held, err = pgx.CollectRows(rows, scanHeldKey)
		return err
	})
	batch.Queue(`SELECT `+replayColumns+` FROM replays WHERE subscriber = $1 AND state IN ('queued', 'running') ORDER BY id LIMIT 1`, id).
		Query(func(rows pgx.Rows) error {
			replays, err := pgx.CollectRows(rows, scanReplay)
			if len(replays) > 0 {
				l.Replay = &replays[0]
			}
			return err
		})
	err := s.pool.SendBatch(ctx, &batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return Loaded{}, ErrNotFound
	}
	if err != nil {
		return Loaded{}, fmt.Errorf("load subscriber %s: %w", id, err)
	}
	if l.Secrets, err = s.openSecrets(id, sealed); err != nil {
		return Loaded{}, fmt.Errorf("load subscriber %s: %w", id, err)
	}
	l.Secrets.Signing = validSigning(l.Secrets.Signing, l.Now)
	for _, secret := range l.Secrets.Signing {
		var left time.Duration
		if !secret.ExpiresAt.IsZero() {
			left = secret.ExpiresAt.Sub(l.Now)
		}
		l.SigningValidFor = append(l.SigningValidFor, left)
	}
	return l, nil
}

// Secrets reads a subscriber's secrets; signing secrets whose overlap is over
// are left out. Errors as Load.
func (s *Store) Secrets(ctx context.Context, id string) (event.Secrets, error) {
	loaded, err := s.Load(ctx, id)
	return loaded.Secrets, err
}

// validSigning returns the secrets that have not expired, the current one
// first.
func validSigning(secrets []event.SigningSecret, now time.Time) []event.SigningSecret {
	var valid []event.SigningSecret
	for _, secret := range secrets {
		if secret.ExpiresAt.IsZero() || secret.ExpiresAt.After(now) {
			valid = append(valid, secret)
		}
	}
	return valid
}

func (s *Store) sealSecrets(id string, secrets event.Secrets) ([]byte, error) {
	if s.sealer == nil {
		return nil, ErrNoSealer
	}
	plain, err := json.Marshal(secrets)
	if err != nil {
		return nil, fmt.Errorf("encode secrets: %w", err)
	}
	return s.sealer.Seal(id, plain), nil
}

func (s *Store) openSecrets(id string, sealed []byte) (event.Secrets, error) {
	if s.sealer == nil {
		return event.Secrets{}, ErrNoSealer
	}
	plain, err := s.sealer.Open(id, sealed)
	if err != nil {
		return event.Secrets{}, fmt.Errorf("open secrets: %w", err)
	}
	var secrets event.Secrets
	if err := json.Unmarshal(plain, &secrets); err != nil {
		// The decoding error could quote what was decoded.
		return event.Secrets{}, ErrSealBroken
	}
	return secrets, nil
}
