package eventlog_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

// changeLog remembers what OnChange was told.
type changeLog struct {
	mu    sync.Mutex
	heads map[int64]int64
	calls int
}

func watch(t *testing.T, log *eventlog.Log) *changeLog {
	c := &changeLog{heads: map[int64]int64{}}
	t.Cleanup(log.OnChange(func(feed, head int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.heads[feed] = head
		c.calls++
	}))
	return c
}

func (c *changeLog) head(feed eventlog.Feed) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heads[feed.ID]
}

// await waits until OnChange was told of that head.
func (c *changeLog) await(t *testing.T, feed eventlog.Feed, head int64) {
	t.Helper()
	testkit.Eventually(t, soon, func() bool { return c.head(feed) == head }, fmt.Sprintf("feed %s is at %d", feed.Name, head))
}

// TestLateCommitIsSeen commits a transaction that began before, and ends after,
// others that the tail has seen.
func TestLateCommitIsSeen(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: 10 * time.Millisecond})
	other := b.newFeed("other", "")
	changes := watch(t, b.log)
	follower := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer follower.Close()

	commit := ourLog{b}.publishLate(t, "late")
	for i := range 3 { // looks that see it as running
		b.append(other, records(1)...)
		changes.await(t, other, int64(i+1))
	}
	if head := changes.head(b.feed); head != 0 {
		t.Fatalf("the late event was seen at %d before it was committed", head)
	}
	commit()
	changes.await(t, b.feed, 1)
	must(t, follower.Wait(t.Context()))
	events, _, err := follower.Next(t.Context(), 10, 1000)
	if err != nil || len(events) != 1 || events[0].ResourceRecordKey != "late" {
		t.Errorf("the follower got %d events, %v", len(events), err)
	}
}

// TestForeignSnapshot holds a snapshot and a transaction open, as a backup or a
// forgotten session does, while events are stored one by one.
func TestForeignSnapshot(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: 10 * time.Millisecond})
	b.append(b.feed, records(1)...)
	changes := watch(t, b.log)
	changes.await(t, b.feed, 1)
	foreign := b.connect()
	must(t, exec(foreign, `BEGIN ISOLATION LEVEL REPEATABLE READ`))
	must(t, exec(foreign, `SELECT pg_current_xact_id(), count(*) FROM events`))

	size := func() (bytes int64) {
		must(t, b.pool.QueryRow(t.Context(), `SELECT pg_relation_size('feeds')`).Scan(&bytes))
		return bytes
	}
	before := size()
	const n = 500
	for range n {
		b.append(b.feed, records(1)...)
	}
	changes.await(t, b.feed, n+1)
	// A counter per feed would leave a row version per append, which the
	// foreign snapshot keeps from being removed.
	if after := size(); after != before {
		t.Errorf("feeds grew from %d to %d bytes by %d appends", before, after, n)
	}
	b.exec(`VACUUM events`)
	var dead int
	must(t, b.pool.QueryRow(t.Context(), `SELECT pg_stat_get_dead_tuples('events'::regclass)`).Scan(&dead))
	if dead != 0 {
		t.Errorf("appends left %d dead rows", dead)
	}
	must(t, exec(foreign, `COMMIT`))
}

func TestLostConnectionsMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: 10 * time.Millisecond})
	publisher := setupAt(t, b.url, eventlog.Config{})
	other := b.newFeed("other", "")
	changes := watch(t, b.log)
	follower := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer follower.Close()
	admin := b.connect()
	want := int64(0)
	for range 5 {
		must(t, exec(admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`))
		testkit.Eventually(t, soon, func() bool {
			_, err := publisher.log.Append(t.Context(), b.feed, records(1))
			return err == nil
		}, "publishing goes on")
		want = publisher.append(b.feed, records(1)...).Last
		publisher.append(other, records(1)...)
		changes.await(t, b.feed, want)
		changes.await(t, other, publisher.readAll(other)[len(publisher.readAll(other))-1].Sequence)
	}
	got := int64(0)
	for got < want {
		must(t, follower.Wait(t.Context()))
		events, _, err := follower.Next(t.Context(), 100, 1<<20)
		must(t, err)
		for _, e := range events {
			if e.Sequence != got+1 {
				t.Fatalf("event %d follows %d", e.Sequence, got)
			}
			got = e.Sequence
		}
	}
}

// TestServerReplaced keeps the snapshot of a server whose transactions went
// further than those of the one in its place, which no query noticed.
func TestServerReplaced(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	log := eventlog.New(b.pool, eventlog.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() { log.Listen(ctx) })
	defer listening.Wait()
	defer cancel()
	testkit.Eventually(t, soon, log.LooksAfresh, "the log listens")
	changes := watch(t, log)
	must(t, log.Look(t.Context(), ""))

	const ahead = "9000000000:9000000000:"
	head := b.append(b.feed, records(1)...).Last
	must(t, log.Look(t.Context(), ahead))
	if changes.head(b.feed) == head {
		t.Fatal("the snapshot of another server sees the event")
	}
	b.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	testkit.Eventually(t, soon, func() bool {
		must(t, log.Look(t.Context(), ""))
		return changes.head(b.feed) == head
	}, "the event is seen once the connection is made anew")
}

// TestNotified leaves polling out: what is stored is known at once, here and in
// another process.
func TestNotified(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: hourly})
	other := setupAt(t, b.url, eventlog.Config{PollInterval: hourly})
	here, there := watch(t, b.log), watch(t, other.log)
	for i := range 20 {
		head := b.append(b.feed, records(2)...).Last
		here.await(t, b.feed, head)
		there.await(t, b.feed, head)
		if want := int64(2 * (i + 1)); head != want {
			t.Fatalf("head is %d, want %d", head, want)
		}
	}
	// Beside a repeat.
	head := b.append(b.feed, keyed("k", "1")).Last + 2
	b.append(b.feed, keyed("k", "1"), record("2"), record("3"))
	here.await(t, b.feed, head)
	there.await(t, b.feed, head)
}

// TestOwnAppendsAreToldAtOnce leaves out polling and notifications: a process that
// cannot listen still follows what it stored itself.
func TestOwnAppendsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: hourly, ListenURL: "postgres://127.0.0.1:1/nobody"})
	f := b.log.Follow(b.feed.ID, 0, event.Filter{ResourceNames: []string{"Property"}})
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for i := range 20 {
		head := b.append(b.feed, event.Event{ResourceName: "Member", ResourceRecordKey: "1"}, record("1")).Last
		must(t, f.Wait(ctx))
		events, scanned, err := f.Next(ctx, 10, 1<<20)
		must(t, err)
		if len(events) != 1 || events[0].Sequence != head || scanned != head {
			t.Fatalf("after %d appends: %d events up to %d, want that of %d", i+1, len(events), scanned, head)
		}
	}
}

// TestIdleFeedsCostNothing follows one of many feeds: a look asks one question
// however many there are, and answers name only what changed.
func TestIdleFeedsCostNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: 10 * time.Millisecond})
	b.exec(`INSERT INTO feeds (name) SELECT 'f' || n FROM generate_series(1, 20000) n`)
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, xid)
		SELECT id, 1, now(), 'N', 'k', pg_current_xact_id() FROM feeds WHERE id <> $1`, b.feed.ID)
	b.exec(`ANALYZE`)
	changes := watch(t, b.log)
	testkit.Eventually(t, soon, func() bool {
		changes.mu.Lock()
		defer changes.mu.Unlock()
		return len(changes.heads) > 20_000
	}, "the first look tells of every feed")
	// The listener's own connect may still be telling of every feed in the first
	// rounds; were every look to, no round would be quiet.
	var calls []int
	for round := range 5 {
		changes.mu.Lock()
		changes.calls = 0
		changes.mu.Unlock()
		for i := range 50 {
			b.append(b.feed, records(1)...)
			changes.await(t, b.feed, int64(50*round+i+1))
		}
		changes.mu.Lock()
		calls = append(calls, changes.calls)
		changes.mu.Unlock()
		if calls[round] <= 100 {
			return
		}
	}
	t.Errorf("50 events each time in one of 20,000 feeds made %d calls", calls)
}

// TestPlansKeepToIndexes looks at an empty log often enough for plans to be
// kept. They must not be ones that read the table whole, or each look would
// once the log is big.
func TestPlansKeepToIndexes(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	scans := func() (n int64) {
		must(t, b.pool.QueryRow(t.Context(), `SELECT coalesce(seq_scan, 0) FROM pg_stat_user_tables WHERE relname = 'events'`).Scan(&n))
		return n
	}
	config, err := store.PoolConfig(b.url)
	must(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	log := eventlog.New(pool, eventlog.Config{})
	watch(t, log)
	before := scans()
	for range 10 {
		must(t, log.Look(t.Context(), ""))
		_, err := log.Read(t.Context(), b.feed.ID, 0, 10)
		must(t, err)
		_, _, err = log.FirstMatch(t.Context(), b.feed.ID, 0, 10, event.Filter{ResourceNames: []string{"Property"}})
		must(t, err)
	}
	used := func() (n int64) {
		must(t, b.pool.QueryRow(t.Context(), `SELECT sum(idx_scan) FROM pg_stat_user_tables WHERE relname = 'events'`).Scan(&n))
		return n
	}
	indexed := used()
	pool.Close() // a session that ends says at last what it did
	testkit.Eventually(t, soon, func() bool { return scans() > before || used() > indexed+20 }, "PostgreSQL counts the scans")
	if n := scans() - before; n > 0 {
		t.Errorf("the log was read whole %d times", n)
	}
}
