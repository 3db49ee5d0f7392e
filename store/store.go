// Package store keeps everything but the log in PostgreSQL: subscribers with
// their sealed secrets, the narrow rows that order controls against leases and
// hold cursors, controls, attempts and settings.
//
// It owns the schema (migrations/) and turns database errors into domain errors
// at its edge. Absolute time is PostgreSQL's clock alone: callers hand over
// durations and get durations back. It refuses to read or write secrets with a
// master key other than the one the database was first used with.
//
// The narrow row's columns are private to Postroad and change between releases.
package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Store is the way to the tables of this package. It is safe for concurrent
// use.
type Store struct {
	pool   *pgxpool.Pool
	sealer *Sealer
	logger *slog.Logger
	// announceRetrying is how long an endpoint fails before it is told of.
	announceRetrying time.Duration
}

// Option changes a Store that New makes.
type Option func(*Store)

// WithLogger sends what the store has to say to logger; slog.Default() without.
func WithLogger(logger *slog.Logger) Option {
	return func(s *Store) { s.logger = logger }
}

// announceRetryingDefault leaves out what a consumer's restart takes.
const announceRetryingDefault = time.Minute

// WithAnnounceRetrying sets how long an endpoint has to fail without a break
// before that is told on the feed _system; 1 min without.
func WithAnnounceRetrying(d time.Duration) Option {
	return func(s *Store) { s.announceRetrying = d }
}

// New returns a Store over pool. The sealer seals and opens secrets; without
// one (nil) every call that needs a secret fails.
func New(pool *pgxpool.Pool, sealer *Sealer, opts ...Option) *Store {
	s := &Store{pool: pool, sealer: sealer, logger: slog.Default(), announceRetrying: announceRetryingDefault}
	for _, opt := range opts {
		opt(s)
	}
	return s
}

// Defaults of a pool; the URL's own pool_max_conns wins.
const (
	poolConnsMax        = 16
	poolConnectTimeout  = 5 * time.Second
	poolConnLifetime    = time.Hour
	poolConnIdleTimeMax = 5 * time.Minute
)

// sessionSettings make every session behave alike, whatever the role's or the
// database's own defaults are; a stronger synchronous_commit than ours stays. A
// transaction whose client died lets go of its locks after a minute, and a
// session whose client's host vanished is over after another: after an outage of
// the network those of before it must not fill max_connections.
//
// Plans are kept, and our tables grow faster than their statistics: a plan made
// while a table was small must not read it whole, or sort it, once it is big, so
// every plan goes by an index. Compiling queries this short only costs time.
const sessionSettings = `SET default_transaction_isolation = 'read committed';
	SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local');
	SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off;
	SET statement_timeout = '60s';
	SET idle_in_transaction_session_timeout = '60s';
	SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
	SET timezone = 'UTC'`

// PoolConfig reads a PostgreSQL URL and returns the configuration of a pool for
// all of Postroad, package eventlog included. Settings are made by statements after connecting, not by startup
// parameters, because connection poolers refuse parameters they do not know.
func PoolConfig(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = poolConnsMax
	}
	if !strings.Contains(url, "connect_timeout") {
		cfg.ConnConfig.ConnectTimeout = poolConnectTimeout
	}
	cfg.MaxConnLifetime = poolConnLifetime
	cfg.MaxConnLifetimeJitter = poolConnLifetime / 10
	cfg.MaxConnIdleTime = poolConnIdleTimeMax
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "postroad"
	}
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		// The simple protocol: several statements in one round trip.
		if _, err := conn.PgConn().Exec(ctx, sessionSettings).ReadAll(); err != nil {
			return fmt.Errorf("prepare session: %w", err)
		}
		return nil
	}
	return cfg, nil
}

// inTx runs fn in one read-committed transaction and commits it unless fn
// returns an error.
func (s *Store) inTx(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)
}

// collect reads the rows of a query; what says in an error what it was for.
func collect[T any](ctx context.Context, s *Store, what string, scan pgx.RowToFunc[T], query string, args ...any) ([]T, error) {
	rows, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return list, nil
}

// collectNumbers reads the rows of a query that are a name and a number each.
func (s *Store) collectNumbers(ctx context.Context, what, query string, args ...any) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	numbers := map[string]int64{}
	var name string
	var number int64
	_, err = pgx.ForEachRow(rows, []any{&name, &number}, func() error {
		numbers[name] = number
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return numbers, nil
}

// notify tells listeners of channel about a subscriber once tx has committed.
func notify(ctx context.Context, tx pgx.Tx, channel, id string) error {
	if _, err := tx.Exec(ctx, `SELECT pg_notify($1, $2)`, channel, id); err != nil {
		return fmt.Errorf("notify %s: %w", channel, err)
	}
	return nil
}
