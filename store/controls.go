package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// Channels of PostgreSQL's NOTIFY; every payload is a subscriber's id.
const (
	// ControlsChannel: a control was accepted.
	ControlsChannel = "postroad_controls"
	// ParkedChannel: a run parked, or the filter of a subscriber changed.
	ParkedChannel = "postroad_parked"
)

// Kinds of control that Control takes; the same words as in contract.
const (
	ControlPause  = "pause"
	ControlResume = "resume"
	// ControlSeek moves the position.
	ControlSeek = "seek"
	// ControlHeldRetry makes the first event of a held key due at once.
	ControlHeldRetry = "held-retry"
	// ControlHeldSkip makes a dead letter of the first event of a held key.
	ControlHeldSkip = "held-skip"
	// ControlHeldRelease makes dead letters of all events of a held key.
	ControlHeldRelease = "held-release"
	// ControlSkip makes a dead letter of the event at which a subscriber halted,
	// and ends the halt.
	ControlSkip = "skip"
)

// SeekTarget says where to go on; one member is set.
type SeekTarget struct {
	// Sequence: the next event is the first above it.
	Sequence *int64
	// Time: the next event is the first recorded at it or later.
	Time *time.Time
	// Beginning: the next event is the first that is kept. Now: it is the first
	// published from now on.
	Beginning, Now bool
}

// PauseReasonCharactersMax bounds the reason kept with a pause.
const PauseReasonCharactersMax = 1000

// ErrUntilPast refuses a pause that would already be over.
var ErrUntilPast = errors.New("the pause would end in the past")

// ControlRequest asks for one change of a subscriber's holds.
type ControlRequest struct {
	Subscriber string
	// Kind is ControlPause, ControlResume, ControlSeek, ControlHeldRetry,
	// ControlHeldSkip, ControlHeldRelease or ControlSkip.
	Kind string
	// Reason is shown in the status while the pause lasts.
	Reason string
	// Until ends a pause by itself; nil: it lasts until resumed.
	Until *time.Time
	// Seek says where to.
	Seek *SeekTarget
	// Key is the held key.
	Key event.Key
	// Sequence is the event to skip; of a held key, 0: the first, whichever it is.
	Sequence int64
	// Source says who asked: api, token:<id> or signal.
	Source string
	// RequestID makes a repeat of the same request harmless: the same id gives
	// the same control again. Empty: every call is a request of its own.
	RequestID string
}

// ControlResult says which control a request became.
type ControlResult struct {
	// Version numbers the subscriber's controls from 1.
	Version int64
	// InForce reports that no request can start any more under the state
	// before the control. Where false, the holder of the lease will see to it.
	InForce bool
}

// Control accepts a control in one transaction. It is in force at once where
// nobody holds the lease or the row is parked; else the holder puts it in force,
// or whoever takes the lease next. One that moves the position, or what is set
// aside, the holder leaves to whoever takes the lease next.
//
// Errors: ErrNotFound, ErrUntilPast, ErrSeekFuture, *SeekAboveHeadError,
// *SeekBelowFloorError, *NotHaltedAtError, *KeyNotHeldError, *NotFirstHeldError.
func (s *Store) Control(ctx context.Context, r ControlRequest) (ControlResult, error) {
	result, err := s.control(ctx, r)
	if err != nil {
		return ControlResult{}, fmt.Errorf("control subscriber %s: %w", r.Subscriber, err)
	}
	return result, nil
}

func (s *Store) control(ctx context.Context, r ControlRequest) (ControlResult, error) {
	var target seekTarget
	if r.Kind == ControlSeek {
		var err error
		if target, err = s.seekTarget(ctx, r); err != nil {
			return ControlResult{}, err
		}
	}
	var result ControlResult
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		c := control{subscriber: r.Subscriber, kind: r.Kind, source: r.Source, requestID: r.RequestID}
		if r.Kind == ControlSeek {
			// The feed is locked before the row, as where the floor is raised.
			if err := target.lock(ctx, tx); err != nil {
				return err
			}
		}
		if err := lockForControl(ctx, tx, r.Subscriber); err != nil {
			return err
		}
		repeat, found, err := findControl(ctx, tx, c)
		if err != nil || found {
			result = repeat
			return err
		}
		if err := prepareControl(ctx, tx, r, target, &c); err != nil {
			return err
		}
		result, err = insertControl(ctx, tx, c)
		return err
	})
	return result, err
}

// prepareControl changes the hold, or looks whether what moves something can be
// done, of the row that lockForControl locked.
func prepareControl(ctx context.Context, tx pgx.Tx, r ControlRequest, target seekTarget, c *control) (err error) {
	switch r.Kind {
	case ControlSeek:
		c.args, err = target.args(ctx, tx, r)
	case ControlHeldRetry, ControlHeldSkip, ControlHeldRelease:
		c.args, err = heldArgs(ctx, tx, r)
	case ControlSkip:
		c.args, err = skipArgs(ctx, tx, r)
	default:
		return changeHold(ctx, tx, r, c)
	}
	return err
}

// InForce reports whether a subscriber's control of that version is in force.
// A subscriber that is gone has nothing left to be forced: true.
func (s *Store) InForce(ctx context.Context, subscriber string, version int64) (bool, error) {
	var inForce bool
	err := s.pool.QueryRow(ctx, `
		SELECT applied_version >= $2 AND NOT EXISTS (SELECT FROM controls c WHERE c.subscriber = runs.id AND c.version = $2 AND `+pendingMove+`)
		  FROM runs WHERE id = $1`, subscriber, version).Scan(&inForce)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at control %d of %s: %w", version, subscriber, err)
	}
	return inForce, nil
}

// PendingControls returns the subscribers whose last control is not in force
// yet, with its version; a partial index keeps it cheap.
func (s *Store) PendingControls(ctx context.Context) (map[string]int64, error) {
	return s.collectNumbers(ctx, "list pending controls", `SELECT id, desired_version FROM runs WHERE desired_version > applied_version`)
}

// control is one row of controls before it has a version.
type control struct {
	subscriber, kind, source string
	// requestID: empty draws a random one.
	requestID string
	// args is what the control asked for, for the record; nil: nothing.
	args map[string]any
}

// storedRequestID is unique over all subscribers: a person's idempotency key
// counts within one.
func (c control) storedRequestID() string {
	if c.requestID == "" {
		return uuid.NewString()
	}
	return c.subscriber + "/" + c.requestID
}

// lockForControl locks the narrow row, which orders controls against leases.
func lockForControl(ctx context.Context, tx pgx.Tx, subscriber string) error {
	var deleted bool
	err := tx.QueryRow(ctx, `SELECT deleted FROM runs WHERE id = $1 FOR UPDATE`, subscriber).Scan(&deleted)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && deleted {
		return ErrNotFound
	}
	return err
}

// findControl returns the control that the same request became earlier.
func findControl(ctx context.Context, tx pgx.Tx, c control) (ControlResult, bool, error) {
	if c.requestID == "" {
		return ControlResult{}, false, nil
	}
	var result ControlResult
	err := tx.QueryRow(ctx, `
		SELECT c.version, r.applied_version >= c.version AND NOT (`+pendingMove+`)
		  FROM controls c JOIN runs r ON r.id = c.subscriber
		 WHERE c.request_id = $1`, c.storedRequestID()).Scan(&result.Version, &result.InForce)
	if errors.Is(err, pgx.ErrNoRows) {
		return ControlResult{}, false, nil
	}
	return result, err == nil, err
}

// changeHold changes the row that lockForControl locked.
func changeHold(ctx context.Context, tx pgx.Tx, r ControlRequest, c *control) error {
	switch r.Kind {
	case ControlPause:
		reason := cutCharacters(r.Reason, PauseReasonCharactersMax)
		c.args = map[string]any{"reason": reason, "until": r.Until}
		tag, err := tx.Exec(ctx, `
			UPDATE runs SET paused = true, pause_reason = nullif($2, ''), paused_until = $3
			 WHERE id = $1 AND ($3::timestamptz IS NULL OR $3 > clock_timestamp())`, r.Subscriber, reason, r.Until)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrUntilPast
		}
		return err
	case ControlResume:
		return resume(ctx, tx, r.Subscriber)
	}
	return fmt.Errorf("unknown control %q", r.Kind)
}

// resume ends disabled, halted and paused together. What the consumer asked
// for with Retry-After ends only where none of them held: then it is what the
// person must have meant. Where the subscriber had stopped by itself, its failing
// events begin anew.
func resume(ctx context.Context, tx pgx.Tx, subscriber string) error {
	_, err := tx.Exec(ctx, `
		UPDATE replays SET failing = NULL, event_attempt = 0
		 WHERE subscriber = $1 AND `+replayOpen+` AND EXISTS (SELECT FROM runs WHERE id = $1 AND (disabled OR halted_reason IS NOT NULL))`, subscriber)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE runs SET
		    paused = false, paused_until = NULL, pause_reason = NULL, disabled = false, halted_reason = NULL,
		    halted_event = NULL, halted_replay = NULL,
		    not_before    = CASE WHEN h.held THEN not_before END,
		    wait_reason   = CASE WHEN h.held AND NOT h.stopped THEN wait_reason END,
		    wait_class    = CASE WHEN h.held AND NOT h.stopped THEN wait_class END,
		    failing_since = CASE WHEN NOT h.stopped THEN failing_since END,
		    failures      = CASE WHEN NOT h.stopped THEN failures ELSE 0 END,
		    event_attempt = CASE WHEN NOT h.stopped THEN event_attempt ELSE 0 END,
		    failing       = CASE WHEN NOT h.stopped THEN failing END,
		    probe         = probe OR h.stopped
		  FROM (SELECT id, disabled OR halted_reason IS NOT NULL AS stopped,
		               disabled OR halted_reason IS NOT NULL OR paused AND (paused_until IS NULL OR paused_until > clock_timestamp()) AS held
		          FROM runs WHERE id = $1) h
		 WHERE runs.id = h.id`, subscriber)
	return err
}

// insertControl records a control of a row that lockForControl locked, raises
// its version and tells the workers. The caller changed the hold, or the
// configuration, in the same transaction.
//
// A row that nobody holds has not been looked at since: the next sweep wakes
// whoever should run, even where Temporal was away and every other wake is lost.
// So is one that is parked, and whoever parked it loses the lease that it may keep:
// a parking that is told again, because nobody heard the answer, must not write over
// what was changed since.
func insertControl(ctx context.Context, tx pgx.Tx, c control) (ControlResult, error) {
	args, err := json.Marshal(c.args)
	if err != nil {
		return ControlResult{}, fmt.Errorf("encode control: %w", err)
	}
	if c.args == nil {
		args = []byte("{}")
	}
	var result ControlResult
	err = tx.QueryRow(ctx, `
		UPDATE runs SET desired_version = desired_version + 1,
		       applied_version = CASE WHEN lease IS NULL OR parked THEN desired_version + 1 ELSE applied_version END,
		       checked_at = CASE WHEN lease IS NULL THEN to_timestamp(0) ELSE checked_at END,
		       lease = CASE WHEN NOT parked THEN lease END, wake_at = CASE WHEN parked THEN clock_timestamp() END
		 WHERE id = $1
		RETURNING desired_version, applied_version = desired_version`, c.subscriber).Scan(&result.Version, &result.InForce)
	if err != nil {
		return ControlResult{}, fmt.Errorf("raise version: %w", err)
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO controls (subscriber, version, request_id, kind, args, source, applied_at)
		VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN clock_timestamp() END)`,
		c.subscriber, result.Version, c.storedRequestID(), c.kind, args, c.source, result.InForce)
	if err != nil {
		return ControlResult{}, fmt.Errorf("insert control: %w", err)
	}
	if movingKinds[c.kind] {
		if err := move(ctx, tx, c.subscriber, result.InForce); err != nil {
			return ControlResult{}, err
		}
	}
	return result, notify(ctx, tx, ControlsChannel, c.subscriber)
}

func cutCharacters(s string, most int) string {
	n := 0
	for i := range s {
		if n == most {
			return s[:i]
		}
		n++
	}
	return s
}
