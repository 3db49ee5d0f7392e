package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// Controls that change the configuration: people make them through the API only.
const (
	kindConfigure = "configure"
	kindDelete    = "delete"

	// argPreviousFilter is the filter that a change of configuration replaced.
	argPreviousFilter = "previousFilter"
)

// Change says of a change of the configuration at which version it is made, and
// by whom.
type Change struct {
	// IfMatch is the version that is changed, and no other; nil: whichever.
	IfMatch *int64
	// Source is recorded: api or token:<id>.
	Source string
}

// Create stores a new subscriber and where it starts, in one transaction. The
// feed cannot be deleted meanwhile.
//
// Errors: ErrFeedNotFound, ErrExists, ErrDeleting, *StartAboveHeadError.
func (s *Store) Create(ctx context.Context, sub event.Subscriber, secrets event.Secrets) (Record, error) {
	record, _, err := s.create(ctx, sub, secrets, false)
	return record, err
}

// CreateParked is Create for one of many: where its feed has nothing yet above
// its start the row is parked from the beginning, and the wakers are told. Its
// first event wakes it, and until then nobody drives it. False: there may be
// something for it already, and it is as Create leaves it.
func (s *Store) CreateParked(ctx context.Context, sub event.Subscriber, secrets event.Secrets) (record Record, parked bool, err error) {
	return s.create(ctx, sub, secrets, true)
}

func (s *Store) create(ctx context.Context, sub event.Subscriber, secrets event.Secrets, park bool) (record Record, parked bool, err error) {
	sealed, err := s.sealSecrets(sub.ID, secrets)
	if err != nil {
		return Record{}, false, fmt.Errorf("create subscriber %s: %w", sub.ID, err)
	}
	sub = sub.Redacted(secrets)
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		feed, err := lockFeed(ctx, tx, sub.Feed)
		if err != nil {
			return err
		}
		cursor, err := feed.startCursor(sub.Start)
		if err != nil {
			return err
		}
		record = Record{Subscriber: sub, FeedID: feed.id, FeedName: sub.Feed, FeedEpoch: feed.epoch}
		err = tx.QueryRow(ctx, `INSERT INTO subscribers (id, feed_id, config, secrets) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO NOTHING RETURNING version, created_at, updated_at`,
			sub.ID, feed.id, sub, sealed).Scan(&record.Version, &record.CreatedAt, &record.UpdatedAt)
		if errors.Is(err, pgx.ErrNoRows) {
			return idTaken(ctx, tx, sub.ID)
		}
		if err != nil {
			return fmt.Errorf("insert subscriber: %w", err)
		}
		pull := sub.Mode == event.ModePull
		parked = park && cursor == feed.head && !pull
		return insertRun(ctx, tx, runInsert{sub.ID, feed.id, cursor, parked, pull})
	})
	if err != nil {
		return Record{}, false, fmt.Errorf("create subscriber %s: %w", sub.ID, err)
	}
	return record, parked, nil
}

// runInsert is the narrow row of a new subscriber.
type runInsert struct {
	id             string
	feedID, cursor int64
	parked, pull   bool
}

func insertRun(ctx context.Context, tx pgx.Tx, r runInsert) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO runs (id, feed_id, cursor, start_sequence, parked, generation, pull)
		VALUES ($1, $2, $3, $3, $4, CASE WHEN $4 THEN nextval('park_generations') ELSE 0 END, $5)`, r.id, r.feedID, r.cursor, r.parked, r.pull)
	if err != nil {
		return fmt.Errorf("insert run: %w", err)
	}
	if r.parked {
		return notify(ctx, tx, ParkedChannel, r.id)
	}
	return nil
}

// feedState is what a new subscriber needs to know of its feed.
type feedState struct {
	id          int64
	epoch       int
	floor, head int64
}

// lockFeed reads a feed and keeps it from being deleted, and its floor from
// being raised, until the transaction ends.
func lockFeed(ctx context.Context, tx pgx.Tx, name string) (feedState, error) {
	var f feedState
	err := tx.QueryRow(ctx, `SELECT id, epoch, floor_sequence FROM feeds WHERE name = $1 AND deleted_at IS NULL FOR SHARE`,
		name).Scan(&f.id, &f.epoch, &f.floor)
	if errors.Is(err, pgx.ErrNoRows) {
		return f, ErrFeedNotFound
	}
	if err != nil {
		return f, fmt.Errorf("lock feed %s: %w", name, err)
	}
	err = tx.QueryRow(ctx, `SELECT greatest($2, coalesce(max(sequence), 0)) FROM events WHERE feed_id = $1`, f.id, f.floor).Scan(&f.head)
	if err != nil {
		return f, fmt.Errorf("read head of feed %s: %w", name, err)
	}
	return f, nil
}

// startCursor is the sequence above which the first event is owed.
func (f feedState) startCursor(start event.Start) (int64, error) {
	switch start.Where {
	case "", "now":
		return f.head, nil
	case "beginning":
		return f.floor, nil
	case "sequence":
		if start.Sequence > f.head {
			return 0, &StartAboveHeadError{Start: start.Sequence, Head: f.head}
		}
		// Below the floor nothing is left to be owed.
		return max(start.Sequence, f.floor), nil
	}
	return 0, fmt.Errorf("unknown start %q", start.Where)
}

// idTaken says why an id could not be inserted.
func idTaken(ctx context.Context, tx pgx.Tx, id string) error {
	var deleted bool
	err := tx.QueryRow(ctx, `SELECT deleted FROM runs WHERE id = $1`, id).Scan(&deleted)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrDeleting // purged since: the caller may try again at once
	case err != nil:
		return fmt.Errorf("look up id: %w", err)
	case deleted:
		return ErrDeleting
	}
	return ErrExists
}

// stored is a subscriber under its lock, secrets opened.
type stored struct {
	record  Record
	secrets event.Secrets
	now     time.Time
}

// lockStored locks a subscriber, its narrow row first, and reads it.
func (s *Store) lockStored(ctx context.Context, tx pgx.Tx, id string, ifMatch *int64) (stored, error) {
	var st stored
	if err := lockForControl(ctx, tx, id); err != nil {
		return st, err
	}
	const query = `SELECT s.config, s.version, s.feed_id, f.name, f.epoch, s.created_at, s.updated_at, s.secrets, clock_timestamp()
		FROM subscribers s JOIN feeds f ON f.id = s.feed_id WHERE s.id = $1`
	var sealed []byte
	var err error
	if st.record, err = scanRecord(tx.QueryRow(ctx, query, id), &sealed, &st.now); err != nil {
		return st, fmt.Errorf("read subscriber: %w", err)
	}
	if ifMatch != nil && *ifMatch != st.record.Version {
		return st, ErrVersionMismatch
	}
	st.secrets, err = s.openSecrets(id, sealed)
	return st, err
}

// Replace stores a whole new configuration with its secrets, as the control
// `configure`: a running delivery finishes what is in flight and then works by
// it. A configuration that is the stored one changes nothing and is no control.
// A caller that kept stored secrets
// names the version it read them at, or undoes a rotation made in between.
//
// A change of endpoint, auth or format ends the wait after failures, not one
// that the consumer asked for with Retry-After.
//
// A subscriber that becomes one of another mode keeps its position, and what was
// dealt with above it.
//
// Errors: ErrNotFound, ErrVersionMismatch, *ImmutableError, *ReplayOpenError.
func (s *Store) Replace(ctx context.Context, sub event.Subscriber, secrets event.Secrets, change Change) (Record, ControlResult, error) {
	sub = sub.Redacted(secrets)
	var record Record
	var result ControlResult
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		old, err := s.lockStored(ctx, tx, sub.ID, change.IfMatch)
		if err != nil {
			return err
		}
		was := old.record.Subscriber
		if sub.Feed != was.Feed {
			return &ImmutableError{Member: "feed"}
		}
		if sub.Start != was.Start {
			return &ImmutableError{Member: "start"}
		}
		same, err := sameConfiguration(was, old.secrets, sub, secrets)
		if err != nil {
			return err
		}
		if same {
			record = old.record
			result, err = lastControl(ctx, tx, sub.ID)
			return err
		}
		if reaches(was, old.secrets) != reaches(sub, secrets) {
			if err := endFailureBackoff(ctx, tx, sub.ID); err != nil {
				return err
			}
		}
		if was.Mode != sub.Mode {
			if err := switchMode(ctx, tx, sub); err != nil {
				return err
			}
		}
		if was.Alert != nil && sub.Alert == nil {
			// Nobody looks at its lag any more, and nobody wants to be told.
			if _, err := tx.Exec(ctx, `UPDATE runs SET behind = false WHERE id = $1 AND behind`, sub.ID); err != nil {
				return fmt.Errorf("end alert: %w", err)
			}
		}
		if !reflect.DeepEqual(was.Filter, sub.Filter) {
			if err := notify(ctx, tx, ParkedChannel, sub.ID); err != nil {
				return err
			}
		}
		record = old.record
		record.Subscriber = sub
		args := map[string]any{}
		if !reflect.DeepEqual(was.Filter, sub.Filter) {
			args[argPreviousFilter] = was.Filter // so that it can be told later what the subscriber was owed
		}
		result, err = s.configure(ctx, tx, &record, secrets, change.Source, args)
		return err
	})
	if err != nil {
		return Record{}, ControlResult{}, fmt.Errorf("replace subscriber %s: %w", sub.ID, err)
	}
	return record, result, nil
}

// sameConfiguration compares configurations as they are stored.
func sameConfiguration(was event.Subscriber, had event.Secrets, is event.Subscriber, has event.Secrets) (bool, error) {
	var forms [4]string
	for i, part := range []any{was, is, had, has} {
		form, err := json.Marshal(part)
		if err != nil {
			return false, fmt.Errorf("encode configuration: %w", err)
		}
		forms[i] = string(form)
	}
	return forms[0] == forms[1] && forms[2] == forms[3], nil
}

// reaches is everything that decides whether a failing endpoint may answer
// differently: endpoint, auth and format, with their secrets.
func reaches(sub event.Subscriber, secrets event.Secrets) string {
	secrets.Signing = nil
	return fmt.Sprintf("%+v %+v %s %+v", sub.Endpoint, sub.Auth, sub.Format, secrets)
}

// ReachesAs reports whether two configurations reach the consumer in the same
// way, so that what failed under one would fail under the other.
func (l *Loaded) ReachesAs(other *Loaded) bool {
	return reaches(l.Subscriber, l.Secrets) == reaches(other.Subscriber, other.Secrets)
}

func endFailureBackoff(ctx context.Context, tx pgx.Tx, id string) error {
	_, err := tx.Exec(ctx, `
		UPDATE runs SET not_before = NULL, wait_reason = NULL, wait_class = NULL, failures = 0, failing_since = NULL,
		       probe = probe OR not_before IS NOT NULL
		 WHERE id = $1 AND wait_class IS DISTINCT FROM $2`, id, WaitAsked)
	if err != nil {
		return fmt.Errorf("end backoff: %w", err)
	}
	// Events that were refused are due at once, each keeping its attempts.
	for _, statement := range []string{
		`UPDATE runs SET failing_at = to_timestamp(0) WHERE id = $1 AND failing IS NOT NULL`,
		`UPDATE replays SET failing_at = to_timestamp(0) WHERE subscriber = $1 AND failing IS NOT NULL AND ` + replayOpen,
		`UPDATE held_keys SET not_before = NULL WHERE subscriber = $1 AND not_before IS NOT NULL`,
	} {
		if _, err := tx.Exec(ctx, statement, id); err != nil {
			return fmt.Errorf("end waits of refused events: %w", err)
		}
	}
	return nil
}

// configure writes the record's configuration as its next version, and the
// control that tells of it, with args.
func (s *Store) configure(ctx context.Context, tx pgx.Tx, record *Record, secrets event.Secrets, source string, args map[string]any) (ControlResult, error) {
	id := record.Subscriber.ID
	sealed, err := s.sealSecrets(id, secrets)
	if err != nil {
		return ControlResult{}, err
	}
	err = tx.QueryRow(ctx, `UPDATE subscribers SET config = $2, secrets = $3, version = version + 1, updated_at = clock_timestamp()
		WHERE id = $1 RETURNING version, updated_at`, id, record.Subscriber, sealed).Scan(&record.Version, &record.UpdatedAt)
	if err != nil {
		return ControlResult{}, fmt.Errorf("update subscriber: %w", err)
	}
	args["version"] = record.Version
	return insertControl(ctx, tx, control{subscriber: id, kind: kindConfigure, source: source, args: args})
}

// lastControl says how far the last control accepted is.
func lastControl(ctx context.Context, tx pgx.Tx, id string) (ControlResult, error) {
	var result ControlResult
	err := tx.QueryRow(ctx, `SELECT desired_version, applied_version = desired_version FROM runs WHERE id = $1`,
		id).Scan(&result.Version, &result.InForce)
	if err != nil {
		return ControlResult{}, fmt.Errorf("read last control: %w", err)
	}
	return result, nil
}

// RotateSigningSecret makes secret the one that new requests are signed with
// first. The ones before it stay valid beside it for overlap, by PostgreSQL's
// clock, or as long as an earlier rotation left them; at most SigningSecretsMax
// are kept. It is a change of the configuration. Errors: ErrNotFound, ErrPulls,
// ErrVersionMismatch.
func (s *Store) RotateSigningSecret(ctx context.Context, id, secret string, overlap time.Duration, change Change) (Record, ControlResult, error) {
	var record Record
	var result ControlResult
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		st, err := s.lockStored(ctx, tx, id, change.IfMatch)
		if err != nil {
			return err
		}
		if st.record.Subscriber.Mode == event.ModePull {
			return ErrPulls
		}
		st.secrets.Signing = rotate(st.secrets.Signing, secret, st.now, overlap)
		record = st.record
		record.Subscriber = record.Subscriber.Redacted(st.secrets)
		result, err = s.configure(ctx, tx, &record, st.secrets, change.Source, map[string]any{})
		return err
	})
	if err != nil {
		return Record{}, ControlResult{}, fmt.Errorf("rotate signing secret of %s: %w", id, err)
	}
	return record, result, nil
}

func rotate(old []event.SigningSecret, secret string, now time.Time, overlap time.Duration) []event.SigningSecret {
	until := now.Add(overlap)
	signing := []event.SigningSecret{{Secret: secret}}
	for _, s := range old {
		if s.Secret == secret {
			continue // rotated back to: it is the current one again
		}
		if s.ExpiresAt.IsZero() || s.ExpiresAt.After(until) {
			s.ExpiresAt = until
		}
		signing = append(signing, s)
	}
	signing = validSigning(signing, now)
	return signing[:min(len(signing), SigningSecretsMax)]
}

// Delete makes a tombstone of a subscriber, with the control `delete`: its
// secrets and all of its configuration but the feed are erased, nothing more is
// sent once the control is in force, and the id stays taken until Purge.
//
// Errors: ErrNotFound, for a tombstone too; ErrVersionMismatch.
func (s *Store) Delete(ctx context.Context, id string, change Change) (ControlResult, error) {
	var result ControlResult
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if err := lockForControl(ctx, tx, id); err != nil {
			return err
		}
		var version int64
		var feed string
		err := tx.QueryRow(ctx, `SELECT s.version, f.name FROM subscribers s JOIN feeds f ON f.id = s.feed_id WHERE s.id = $1`,
			id).Scan(&version, &feed)
		if err != nil {
			return fmt.Errorf("read subscriber: %w", err)
		}
		if change.IfMatch != nil && *change.IfMatch != version {
			return ErrVersionMismatch
		}
		_, err = tx.Exec(ctx, `UPDATE subscribers SET config = $2, secrets = '', version = version + 1, updated_at = clock_timestamp()
			WHERE id = $1`, id, map[string]string{"id": id, "feed": feed})
		if err != nil {
			return fmt.Errorf("erase configuration: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE runs SET deleted = true, pause_reason = NULL, halted_reason = NULL, wait_reason = NULL,
			last_error = NULL, settled = '{}', failing = NULL, wake_at = NULL WHERE id = $1`, id)
		if err != nil {
			return fmt.Errorf("mark deleted: %w", err)
		}
		for _, table := range []string{"held_events", "held_keys", "dead_letters", "replays", "pull_leases"} {
			if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE subscriber = $1`, id); err != nil {
				return fmt.Errorf("erase %s: %w", table, err)
			}
		}
		result, err = insertControl(ctx, tx, control{subscriber: id, kind: kindDelete, source: change.Source})
		return err
	})
	if err != nil {
		return ControlResult{}, fmt.Errorf("delete subscriber %s: %w", id, err)
	}
	return result, nil
}

// Purge removes a tombstone and its controls; the id is free then. A living
// subscriber, or none, is left alone. Attempts stay until their day is dropped.
func (s *Store) Purge(ctx context.Context, id string) error {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM runs WHERE id = $1 AND deleted`, id)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM controls WHERE subscriber = $1`, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM subscribers WHERE id = $1`, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("purge subscriber %s: %w", id, err)
	}
	return nil
}
