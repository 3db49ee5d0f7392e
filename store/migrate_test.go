package store_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"golang.org/x/sync/errgroup"

	"postroad/internal/testkit"
	"postroad/store"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	t.Run("several processes at once", func(t *testing.T) {
		t.Parallel()
		url := testkit.Database(t, nil)
		g, ctx := errgroup.WithContext(t.Context())
		for range 4 {
			g.Go(func() error { return store.Migrate(ctx, url) })
		}
		check(t, g.Wait())
		check(t, store.CheckSchema(t.Context(), openPool(t, url)))
	})
	t.Run("accepts a URL with settings of a pool", func(t *testing.T) {
		t.Parallel()
		url := testkit.Database(t, nil)
		separator := "?"
		if strings.Contains(url, "?") {
			separator = "&"
		}
		check(t, store.Migrate(t.Context(), url+separator+"pool_max_conns=3"))
	})
}

// TestMigrateBehindAReader: a migration that has to wait for somebody who reads
// for long holds up no append of the release that goes on meanwhile.
func TestMigrateBehindAReader(t *testing.T) {
	t.Parallel()
	b := &bundle{t: t, url: testkit.Database(t, nil)}
	b.pool = openPool(t, b.url)
	db := stdlib.OpenDBFromPool(b.pool)
	defer db.Close()
	older, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"))
	check(t, err)
	_, err = older.UpTo(t.Context(), 3)
	check(t, err)
	reading, err := b.pool.Begin(t.Context())
	check(t, err)
	defer func() { _ = reading.Rollback(context.Background()) }()
	_, err = reading.Exec(t.Context(), `SELECT count(*) FROM events`)
	check(t, err)

	migrated := make(chan error, 1)
	go func() { migrated <- store.Migrate(t.Context(), b.url) }()
	b.awaitLockWaiters(1)
	appending, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = b.pool.Exec(appending, `INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		VALUES (1, 1, clock_timestamp(), 'Property', '1')`)
	if err != nil {
		t.Errorf("append beside a migration: %v", err)
	}
	b.awaitLockWaiters(1) // it comes again
	check(t, reading.Commit(t.Context()))
	check(t, <-migrated)
	check(t, store.CheckSchema(t.Context(), b.pool))
}

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	schemaError := func(t *testing.T, err error) *store.SchemaError {
		t.Helper()
		var schema *store.SchemaError
		if !errors.As(err, &schema) {
			t.Fatalf("got %v, want a SchemaError", err)
		}
		return schema
	}
	t.Run("an empty database says what to run", func(t *testing.T) {
		t.Parallel()
		err := store.CheckSchema(t.Context(), openPool(t, testkit.Database(t, nil)))
		if s := schemaError(t, err); s.Current != 0 || s.Needed == 0 || !strings.Contains(err.Error(), "postroad migrate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an older schema is refused", func(t *testing.T) {
		b := setup(t)
		b.exec(`DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
		err := store.CheckSchema(t.Context(), b.pool)
		if s := schemaError(t, err); s.Current == 0 || s.Current >= s.Needed || !strings.Contains(err.Error(), "postroad migrate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the release before goes on at a newer schema", func(t *testing.T) {
		b := setup(t)
		b.exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)`)
		check(t, store.CheckSchema(t.Context(), b.pool))
		check(t, store.Migrate(t.Context(), b.url))
		if last := value[int64](b, `SELECT max(version_id) FROM goose_db_version`); last != 9999 {
			t.Errorf("migrating took the schema back to version %d", last)
		}
	})
}

func TestPoolConfig(t *testing.T) {
	t.Run("sessions do not follow the database's defaults", func(t *testing.T) {
		b := setup(t)
		database := value[string](b, `SELECT current_database()`)
		b.exec(`ALTER DATABASE ` + database + ` SET default_transaction_isolation = 'serializable'`)
		b.exec(`ALTER DATABASE ` + database + ` SET synchronous_commit = off`)
		other := &bundle{t: t, pool: openPool(t, b.url)}
		for setting, want := range map[string]string{"transaction_isolation": "read committed", "synchronous_commit": "on"} {
			if got := value[string](other, `SELECT current_setting($1)`, setting); got != want {
				t.Errorf("%s is %q, want %q", setting, got, want)
			}
		}
	})
	t.Run("a stronger synchronous_commit stays", func(t *testing.T) {
		b := setup(t)
		b.exec(`ALTER DATABASE ` + value[string](b, `SELECT current_database()`) + ` SET synchronous_commit = remote_apply`)
		other := &bundle{t: t, pool: openPool(t, b.url)}
		if got := value[string](other, `SHOW synchronous_commit`); got != "remote_apply" {
			t.Errorf("synchronous_commit is %q", got)
		}
	})
	t.Run("the URL's own pool size wins", func(t *testing.T) {
		cfg, err := store.PoolConfig("postgres://db.example/postroad?pool_max_conns=3")
		check(t, err)
		if cfg.MaxConns != 3 {
			t.Errorf("MaxConns is %d", cfg.MaxConns)
		}
	})
}

func TestUnavailable(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	conn, err := b.pool.Acquire(ctx)
	check(t, err)
	defer conn.Release()
	pid := conn.Conn().PgConn().PID()
	b.exec(`SELECT pg_terminate_backend($1)`, int64(pid))
	_, lost := conn.Exec(ctx, `SELECT 1`)
	_, lostAgain := conn.Exec(ctx, `SELECT 1`)
	_, refused := openPool(t, "postgres://127.0.0.1:1/postroad?connect_timeout=1").Exec(ctx, `SELECT 1`)
	_, badStatement := b.pool.Exec(ctx, `SELECT no_such_column`)
	expired, cancel := context.WithTimeout(ctx, 0)
	defer cancel()
	_, late := b.pool.Exec(expired, `SELECT 1`)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, wentAway := b.pool.Exec(cancelled, `SELECT 1`)
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"connection lost": {lost, true}, "connection closed": {lostAgain, true}, "connection refused": {refused, true},
		"no connection in time": {late, true}, "caller went away": {wentAway, false}, "wrong statement": {badStatement, false},
		"no error": {nil, false}, "domain error": {store.ErrExists, false},
	} {
		if name != "no error" && c.err == nil {
			t.Errorf("%s: no error came about", name)
		}
		if got := store.Unavailable(c.err); got != c.want {
			t.Errorf("%s: Unavailable(%v) = %t", name, c.err, got)
		}
	}
}
