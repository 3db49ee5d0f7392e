package store_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// bundle is a store over a database of the test's own.
type bundle struct {
	*store.Store
	t    *testing.T
	pool *pgxpool.Pool
	url  string
}

// testKey is the master key of every bundle.
var testKey = [store.KeyBytes]byte{1, 2, 3}

func setup(t *testing.T) *bundle {
	t.Helper()
	t.Parallel()
	url := testkit.Database(t, store.Migrate)
	pool := openPool(t, url)
	sealer, err := store.NewSealer(testKey)
	check(t, err)
	return &bundle{Store: store.New(pool, sealer), t: t, pool: pool, url: url}
}

// Confirm asks for one lease alone.
func (b *bundle) Confirm(ctx context.Context, subscriber string, lease uuid.UUID) (desired int64, held bool, err error) {
	leases, err := b.Store.Confirm(ctx, []store.Lease{{Subscriber: subscriber, ID: lease}})
	desired, held = leases[store.Lease{Subscriber: subscriber, ID: lease}]
	return desired, held, err
}

func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := store.PoolConfig(url)
	check(t, err)
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	check(t, err)
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			pool.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(10 * time.Second): // else a failed test would hang
			t.Error("a connection was not given back to the pool")
		}
	})
	return pool
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exec runs a statement that must succeed.
func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	check(b.t, err)
}

// value reads one value.
func value[T any](b *bundle, sql string, args ...any) T {
	b.t.Helper()
	var v T
	check(b.t, b.pool.QueryRow(b.t.Context(), sql, args...).Scan(&v))
	return v
}

// publish appends events to the default feed under the given numbers.
func (b *bundle) publish(age time.Duration, sequences ...int64) {
	b.t.Helper()
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		SELECT f.id, n, clock_timestamp() - $2::interval, 'Property', n::text
		FROM feeds f, unnest($1::bigint[]) n WHERE f.name = 'default'`, sequences, age)
}

// subscriber is a valid configuration that holds no secret.
func subscriber(id string) event.Subscriber {
	return event.Subscriber{ID: id, Endpoint: event.Endpoint{URL: "https://consumer.example/hook"}}.Defaulted()
}

// create stores a subscriber with the given start.
func (b *bundle) create(id string, start event.Start) store.Record {
	b.t.Helper()
	sub := subscriber(id)
	sub.Start = start
	record, err := b.Create(b.t.Context(), sub, event.Secrets{})
	check(b.t, err)
	return record
}

// awaitLockWaiters returns once n sessions of this database wait for a lock.
func (b *bundle) awaitLockWaiters(n int) {
	b.t.Helper()
	testkit.Eventually(b.t, 10*time.Second, func() bool {
		return value[int](b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) >= n
	}, "nobody waits for a lock")
}
