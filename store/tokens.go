package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// Roles of tokens. What each may do is the API's affair.
const (
	RoleAdmin      = "admin"      // everything
	RolePublisher  = "publisher"  // of its feeds
	RoleReader     = "reader"     // of its feeds
	RoleSubscriber = "subscriber" // one subscriber: itself
)

// States of a token, by PostgreSQL's clock.
const (
	TokenActive  = "active"
	TokenExpired = "expired"
	TokenRevoked = "revoked" // or its subscriber was deleted
)

// Bounds of tokens.
const (
	// TokensMax is the most tokens that Tokens returns at once.
	TokensMax = 1000
	// TokenFeedsMax is how many feeds one token may be for.
	TokenFeedsMax = 100
	// TokenEndedKept is how long a token is shown after its end.
	TokenEndedKept = 30 * 24 * time.Hour
)

// ErrTokenNotFound says that there is no such token.
var ErrTokenNotFound = errors.New("no such token")

// Token is a bearer token as it may be shown: without its secret.
type Token struct {
	// ID is public: it stands in the token's text and in the records of what was
	// done with it.
	ID   string
	Role string
	// Feeds are the names of the feeds that it is for, in order; those that were
	// deleted since are left out. None for the roles admin and subscriber.
	Feeds []string
	// Subscriber is the one that it is for; "" for the other roles.
	Subscriber  string
	Description string
	CreatedAt   time.Time
	// CreatedBy is admin, for the token of the environment, or token:<id>.
	CreatedBy string
	// ExpiresAt and RevokedAt end it; nil: nothing does.
	ExpiresAt *time.Time
	RevokedAt *time.Time
	// LastUsedAt is to the minute; nil: never.
	LastUsedAt *time.Time
	// State is TokenActive, TokenExpired or TokenRevoked.
	State string
	// Now is PostgreSQL's clock when the row was read.
	Now time.Time

	hash []byte
}

// Opens reports whether this is the token's text and it was valid when it was
// read. It takes as long for a text that is nearly right as for any other.
func (t *Token) Opens(text string) bool {
	return t.State == TokenActive && sameHash(t.hash, text)
}

// Remaining is how long a token with an end is still valid, by PostgreSQL's
// clock when it was read; false for one without an end.
func (t *Token) Remaining() (time.Duration, bool) {
	if t.ExpiresAt == nil {
		return 0, false
	}
	return t.ExpiresAt.Sub(t.Now), true
}

// TokenSpec is what a token is made of; its members mean what those of Token do.
type TokenSpec struct {
	Role        string
	Feeds       []string
	Subscriber  string
	Description string
	CreatedBy   string
	// ExpiresAt ends the token; nil: it lasts until it is revoked.
	ExpiresAt *time.Time
}

// selectTokens reads tokens for scanToken. A feed counts while it is the one
// that the token was made for.
const selectTokens = `SELECT t.id, t.hash, t.role, coalesce(t.subscriber, ''), t.description, t.created_at, t.created_by,
		t.expires_at, t.revoked_at, t.last_used_at, now.now,
		ARRAY(SELECT f.name FROM token_feeds tf JOIN feeds f ON f.id = tf.feed_id AND f.epoch = tf.epoch
		      WHERE tf.token = t.id AND f.deleted_at IS NULL ORDER BY f.name),
		CASE WHEN t.revoked_at IS NOT NULL
		       OR t.subscriber IS NOT NULL AND NOT EXISTS (SELECT FROM runs r WHERE r.id = t.subscriber AND NOT r.deleted) THEN 'revoked'
		     WHEN t.expires_at <= now.now THEN 'expired' ELSE 'active' END
	FROM tokens t CROSS JOIN (SELECT clock_timestamp() AS now) now`

func scanToken(row pgx.CollectableRow) (Token, error) {
	var t Token
	err := row.Scan(&t.ID, &t.hash, &t.Role, &t.Subscriber, &t.Description, &t.CreatedAt, &t.CreatedBy,
		&t.ExpiresAt, &t.RevokedAt, &t.LastUsedAt, &t.Now, &t.Feeds, &t.State)
	return t, err
}

// oneToken reads a token of that id. Errors: ErrTokenNotFound.
func oneToken(ctx context.Context, q querier, id string) (Token, error) {
	rows, err := q.Query(ctx, selectTokens+` WHERE t.id = $1`, id)
	if err != nil {
		return Token{}, fmt.Errorf("read token %s: %w", id, err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, scanToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return Token{}, ErrTokenNotFound
	}
	if err != nil {
		return Token{}, fmt.Errorf("read token %s: %w", id, err)
	}
	return t, nil
}

// Token reads a token, a revoked one too. Errors: ErrTokenNotFound.
func (s *Store) Token(ctx context.Context, id string) (Token, error) {
	return oneToken(ctx, s.pool, id)
}

// Tokens reads tokens with an id above after, in order of id, at most limit and
// never more than TokensMax of them.
func (s *Store) Tokens(ctx context.Context, after string, limit int) ([]Token, error) {
	return collect(ctx, s, "list tokens", scanToken, selectTokens+` WHERE t.id > $1 ORDER BY t.id LIMIT $2`, after, clampLimit(limit, TokensMax))
}

// ExpiringTokens reads the tokens that are valid now and will not be after
// within, those that end first in front, at most TokensMax of them.
func (s *Store) ExpiringTokens(ctx context.Context, within time.Duration) ([]Token, error) {
	list, err := collect(ctx, s, "list tokens that expire", scanToken, selectTokens+`
		WHERE t.expires_at > now.now AND t.expires_at <= now.now + $1::interval AND t.revoked_at IS NULL
		ORDER BY t.expires_at, t.id LIMIT $2`, within, TokensMax)
	return slices.DeleteFunc(list, func(t Token) bool { return t.State != TokenActive }), err
}

// CreateToken makes a token and returns its text, which nobody can read again.
//
// Errors: event.FieldErrors, with the members named as in the API.
func (s *Store) CreateToken(ctx context.Context, spec TokenSpec) (Token, string, error) {
	if err := spec.validate(); err != nil {
		return Token{}, "", err
	}
	id, text := newToken()
	var t Token
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if err := insertToken(ctx, tx, id, text, spec); err != nil {
			return err
		}
		if err := insertTokenFeeds(ctx, tx, id, spec.Feeds); err != nil {
			return err
		}
		var err error
		t, err = oneToken(ctx, tx, id)
		return err
	})
	if err != nil {
		return Token{}, "", fmt.Errorf("create token: %w", err)
	}
	return t, text, nil
}

func (spec TokenSpec) validate() error {
	var faults event.FieldErrors
	if !slices.Contains([]string{RoleAdmin, RolePublisher, RoleReader, RoleSubscriber}, spec.Role) {
		faults.Add("/role", "must be admin, publisher, reader or subscriber")
		return faults // what else there may be depends on it
	}
	ofFeeds := spec.Role == RolePublisher || spec.Role == RoleReader
	switch {
	case !ofFeeds && len(spec.Feeds) > 0:
		faults.Add("/feeds", "must be left out for the role "+spec.Role)
	case ofFeeds && (len(spec.Feeds) == 0 || len(spec.Feeds) > TokenFeedsMax):
		faults.Add("/feeds", fmt.Sprintf("must name 1 to %d feeds for the role %s", TokenFeedsMax, spec.Role))
	}
	for i, name := range spec.Feeds {
		if slices.Contains(spec.Feeds[:i], name) {
			faults.Add(fmt.Sprintf("/feeds/%d", i), "is named twice")
		}
	}
	switch {
	case spec.Role != RoleSubscriber && spec.Subscriber != "":
		faults.Add("/subscriber", "must be left out for the role "+spec.Role)
	case spec.Role == RoleSubscriber && spec.Subscriber == "":
		faults.Add("/subscriber", "must name a subscriber for the role subscriber")
	}
	if len([]rune(spec.Description)) > event.DescriptionCharactersMax {
		faults.Add("/description", fmt.Sprintf("must not be longer than %d characters", event.DescriptionCharactersMax))
	}
	return faults.Err()
}

// insertToken looks at the subscriber and at the clock in the statement that
// stores the token.
func insertToken(ctx context.Context, tx pgx.Tx, id, text string, spec TokenSpec) error {
	if spec.Subscriber != "" {
		// The lock holds deletion off until the token is there, and dies with it.
		if err := lockForControl(ctx, tx, spec.Subscriber); errors.Is(err, ErrNotFound) {
			return event.FieldErrors{{Pointer: "/subscriber", Detail: "names no subscriber"}}
		} else if err != nil {
			return fmt.Errorf("look for subscriber: %w", err)
		}
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO tokens (id, hash, role, subscriber, description, created_by, expires_at)
		SELECT $1, $2, $3, nullif($4, ''), $5, $6, $7
		 WHERE $7::timestamptz IS NULL OR $7 > clock_timestamp()`,
		id, hashOf(text), spec.Role, spec.Subscriber, spec.Description, spec.CreatedBy, spec.ExpiresAt)
	if err != nil {
		return fmt.Errorf("insert token: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return event.FieldErrors{{Pointer: "/expiresAt", Detail: "must be in the future"}}
	}
	return nil
}

// insertTokenFeeds ties the token to the feeds that have these names now. One
// that is deleted meanwhile was, and the token is not for its successor.
func insertTokenFeeds(ctx context.Context, tx pgx.Tx, id string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		WITH known AS (SELECT f.id, f.epoch, f.name FROM feeds f WHERE f.name = ANY($2) AND f.deleted_at IS NULL),
		     tied AS (INSERT INTO token_feeds (token, feed_id, epoch) SELECT $1, id, epoch FROM known)
		SELECT name FROM known`, id, names)
	if err != nil {
		return fmt.Errorf("insert feeds: %w", err)
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("insert feeds: %w", err)
	}
	var faults event.FieldErrors
	for i, name := range names {
		if !slices.Contains(known, name) {
			faults.Add(fmt.Sprintf("/feeds/%d", i), "names no feed")
		}
	}
	return faults.Err()
}

// RevokeToken ends a token. One that was revoked before keeps its first time.
// Errors: ErrTokenNotFound.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	tag, err := s.pool.Exec(ctx, `UPDATE tokens SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrTokenNotFound
	}
	return nil
}

// ReapTokens removes tokens that ended TokenEndedKept ago, at most max of them,
// and returns how many it removed. Several processes may call it at once.
func (s *Store) ReapTokens(ctx context.Context, max int) (int, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM tokens WHERE id = ANY (ARRAY(
			SELECT id FROM tokens WHERE least(revoked_at, expires_at) <= clock_timestamp() - $1::interval
			LIMIT $2 FOR UPDATE SKIP LOCKED))`, TokenEndedKept, max)
	if err != nil {
		return 0, fmt.Errorf("remove ended tokens: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// TouchTokens records when tokens were used last: how long ago, by id. Of what
// several processes have to say about a token, what comes within every after
// the time that is stored is left out.
func (s *Store) TouchTokens(ctx context.Context, used map[string]time.Duration, every time.Duration) error {
	ids, ago := make([]string, 0, len(used)), make([]time.Duration, 0, len(used))
	for id, d := range used {
		ids, ago = append(ids, id), append(ago, d)
	}
	// Whoever holds a row writes the same about it, or ends it: it is not waited for.
	_, err := s.pool.Exec(ctx, `
		UPDATE tokens SET last_used_at = u.at
		  FROM (SELECT t.id, clock_timestamp() - u.ago AS at
		          FROM unnest($1::text[], $2::interval[]) u (id, ago) JOIN tokens t ON t.id = u.id
		           FOR UPDATE OF t SKIP LOCKED) u
		 WHERE tokens.id = u.id AND (tokens.last_used_at IS NULL OR tokens.last_used_at + $3::interval <= u.at)`, ids, ago, every)
	if err != nil {
		return fmt.Errorf("record use of tokens: %w", err)
	}
	return nil
}
