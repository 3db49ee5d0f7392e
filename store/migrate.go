package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrationLockWaitSeconds is how long Migrate waits for another process that
// migrates the same database.
const migrationLockWaitSeconds = 300

const (
	// A statement that changes a table waits behind whoever reads it, and every
	// append behind the statement: so it gives up soon, and comes again later.
	migrationLockTimeout = "2s"
	migrationRetryDelay  = 2 * time.Second
	// migrationRetryFor is how long Migrate comes again.
	migrationRetryFor = 5 * time.Minute
)

// SchemaError says that the schema is older than this binary.
type SchemaError struct {
	// Current is the version of the database's schema, 0 for none; Needed the
	// version this binary works with.
	Current, Needed int64
}

// Error implements error.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("the database schema is at version %d, this binary needs version %d: run `postroad migrate`", e.Current, e.Needed)
}

// Migrate brings the schema of the database at url to the version this binary
// works with, and leaves a newer one alone. Several processes may call it at
// once: they take turns. Processes of the release before go on meanwhile, and are
// held up for a moment at most.
func Migrate(ctx context.Context, url string) error {
	for began := time.Now(); ; {
		err := migrate(ctx, url)
		if !hasCode(err, sqlstateLockNotAvailable) && !hasCode(err, sqlstateDeadlock) || time.Since(began) > migrationRetryFor {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(migrationRetryDelay):
		}
	}
}

func migrate(ctx context.Context, url string) (err error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("read database URL: %w", err)
	}
	db := stdlib.OpenDB(*cfg.ConnConfig, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SET lock_timeout = '`+migrationLockTimeout+`'`)
		return err
	}))
	defer func() { err = errors.Join(err, db.Close()) }()
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return fmt.Errorf("open migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, migrationLockWaitSeconds))
	if err != nil {
		return fmt.Errorf("prepare migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

// CheckSchema returns a *SchemaError where the schema is older than the version
// this binary works with. A newer one is fit for it: migrations only add, so
// that the processes of the release before go on during an upgrade.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool) error {
	needed, err := neededVersion()
	if err != nil {
		return err
	}
	var current int64
	err = pool.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&current)
	if err != nil && !hasCode(err, sqlstateUndefinedTable) {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current < needed {
		return &SchemaError{Current: current, Needed: needed}
	}
	return nil
}

// neededVersion is the number of the last migration in this binary.
func neededVersion() (int64, error) {
	entries, err := fs.ReadDir(migrationFiles, "migrations")
	if err != nil {
		return 0, fmt.Errorf("open migrations: %w", err)
	}
	var last int64
	for _, entry := range entries {
		version, err := goose.NumericComponent(entry.Name())
		if err != nil {
			return 0, fmt.Errorf("read migration name %s: %w", entry.Name(), err)
		}
		last = max(last, version)
	}
	return last, nil
}
