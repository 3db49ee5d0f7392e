package eventlog_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// soon bounds waiting for what should take milliseconds.
const soon = 20 * time.Second

// bundle is a started log over a database of the test's own.
type bundle struct {
	t    testing.TB
	log  *eventlog.Log
	pool *pgxpool.Pool
	url  string
	feed eventlog.Feed // default
}

func setup(t testing.TB, config eventlog.Config) *bundle {
	t.Helper()
	return setupAt(t, testkit.Database(t, store.Migrate), config)
}

func setupAt(t testing.TB, url string, config eventlog.Config) *bundle {
	t.Helper()
	poolConfig, err := store.PoolConfig(url)
	must(t, err)
	poolConfig.MaxConns = 12
	pool, err := pgxpool.NewWithConfig(t.Context(), poolConfig)
	must(t, err)
	t.Cleanup(pool.Close)
	b := &bundle{t: t, log: eventlog.New(pool, config), pool: pool, url: url}
	must(t, b.log.Start(context.Background()))
	t.Cleanup(b.log.Close)
	b.feed = b.readFeed("default")
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) readFeed(name string) eventlog.Feed {
	b.t.Helper()
	feed, err := b.log.Feed(b.t.Context(), name)
	must(b.t, err)
	return feed
}

func (b *bundle) newFeed(name, sequences string) eventlog.Feed {
	b.t.Helper()
	feed, err := b.log.CreateFeed(b.t.Context(), eventlog.FeedSpec{Name: name, Sequences: sequences})
	must(b.t, err)
	return feed
}

func (b *bundle) append(feed eventlog.Feed, events ...event.Event) eventlog.Result {
	b.t.Helper()
	result, err := b.log.Append(b.t.Context(), feed, events)
	must(b.t, err)
	return result
}

// connect returns a connection outside the log's pool.
func (b *bundle) connect() *pgx.Conn {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.url)
	must(b.t, err)
	b.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	must(b.t, err)
}

// holdFeed keeps every append to the feed waiting until release.
func (b *bundle) holdFeed(feed eventlog.Feed) (release func()) {
	b.t.Helper()
	tx, err := b.connect().Begin(b.t.Context())
	must(b.t, err)
	_, err = tx.Exec(b.t.Context(), `SELECT lock_feed($1)`, feed.ID)
	must(b.t, err)
	return func() {
		b.t.Helper()
		must(b.t, tx.Rollback(b.t.Context()))
	}
}

// awaitLockWaiters waits until that many appends wait for a feed's lock.
func (b *bundle) awaitLockWaiters(n int) {
	b.t.Helper()
	testkit.Eventually(b.t, soon, func() bool { return b.lockWaiters() >= n }, "appends wait for the feed's lock")
}

// lockWaiters counts those who wait for a lock of any kind.
func (b *bundle) lockWaiters() int {
	b.t.Helper()
	var n int
	must(b.t, b.pool.QueryRow(b.t.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
	return n
}

// appending starts an Append and returns what waits for its result.
func (b *bundle) appending(ctx context.Context, feed eventlog.Feed, events ...event.Event) func() (eventlog.Result, error) {
	type answer struct {
		result eventlog.Result
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		result, err := b.log.Append(ctx, feed, events)
		done <- answer{result, err}
	}()
	return func() (eventlog.Result, error) {
		a := <-done
		return a.result, a.err
	}
}

// readAll reads a feed to its end.
func (b *bundle) readAll(feed eventlog.Feed) []event.Event {
	b.t.Helper()
	var all []event.Event
	after := feed.FloorSequence
	for {
		page, err := b.log.Read(b.t.Context(), feed.ID, after, 1000)
		must(b.t, err)
		all = append(all, page.Events...)
		if len(page.Events) == 0 {
			return all
		}
		after = page.Next
	}
}

// record makes an event that speaks of a record of that key.
func record(key string) event.Event {
	return event.Event{ResourceName: "Property", ResourceRecordKey: key}
}

func records(n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = record(fmt.Sprint(i))
	}
	return events
}

func exec(conn *pgx.Conn, sql string, args ...any) error {
	_, err := conn.Exec(context.Background(), sql, args...)
	return err
}
