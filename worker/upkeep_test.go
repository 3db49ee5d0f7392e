package worker_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/worker"
)

const often = 20 * time.Millisecond

func TestOneWakerIsActive(t *testing.T) {
	t.Parallel()
	active := func(w *worker.Waker) func() bool { return func() bool { return w.Counters().Active.Load() == 1 } }
	t.Run("a second one takes over when the first stops", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		_, stop := b.wake(quick(nil))
		second, _ := b.start(quick(nil))
		// Beside the one try of the winner, the loser's: again and again.
		tries := map[time.Time]bool{}
		b.eventually(func() bool {
			var last time.Time
			b.check(b.pool.QueryRow(t.Context(), `SELECT coalesce(max(query_start), 'epoch') FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'`).Scan(&last))
			tries[last] = true
			return len(tries) > 4
		}, "the second one tries for the lock")
		b.publish("Property", "")
		b.woken("acme1", 1, b.generation("acme1"))
		if active(second)() {
			t.Error("both are active")
		}
		stop()
		b.eventually(active(second), "the second one takes over")
		b.woken("acme1", 2, b.generation("acme1")) // it cannot know of the first one's
	})
	t.Run("one that loses its session stops acting and tries again", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		first, _ := b.wake(quick(func(c *worker.WakerConfig) { c.LockPoll = 200 * time.Millisecond }))
		second, _ := b.start(quick(nil))
		b.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (classid::bigint << 32 | objid::bigint) = x'706f7374726f6164'::bigint AND pid <> pg_backend_pid()`)
		b.eventually(active(second), "the second one takes over")
		b.eventually(func() bool { return !active(first)() }, "the first one stops acting")
	})
	t.Run("one whose signals do not arrive lets the other try", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		b.signals.fail(errors.New("Temporal is away"))
		b.wake(quick(func(c *worker.WakerConfig) { c.YieldAfter = 50 * time.Millisecond }))
		second, _ := b.start(quick(nil))
		b.publish("Property", "")
		b.eventually(active(second), "the second one takes over")
		b.signals.fail(nil)
		b.woken("acme1", 1, b.generation("acme1"))
	})
	t.Run("a silent session is ended by PostgreSQL", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		// This one shows no life for an hour: its host has vanished.
		b.wake(quick(func(c *worker.WakerConfig) { c.LockPoll, c.LockTimeout = time.Hour, 300*time.Millisecond }))
		second, _ := b.start(quick(nil))
		b.eventually(active(second), "the second one takes over")
	})
}

func TestWakerSweeps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const old = "clock_timestamp() - interval '1 hour'"
	b.insert("neglected", 2, `{}`, "cursor, checked_at", "0, "+old)
	b.insert("waited", 1, `{}`, "cursor, checked_at, not_before", "0, "+old+", "+old)
	b.insert("fresh", 1, `{}`, "cursor", "0")
	b.insert("waiting", 1, `{}`, "cursor, checked_at, not_before", "0, "+old+", clock_timestamp() + interval '1 hour'")
	b.insert("paused", 1, `{}`, "cursor, checked_at, paused", "0, "+old+", true")
	b.insert("deleted", 1, `{}`, "cursor, checked_at, deleted", "0, "+old+", true")
	b.insert("parked", 1, `{}`, "cursor, checked_at, parked, generation", "0, "+old+", true, 1")
	b.signals.running = map[string]bool{"deleted1": true}
	b.wake(quick(func(c *worker.WakerConfig) { c.Sweep = often }))
	b.woken("neglected1", 2, 0) // as nobody looks at it after the first
	b.woken("neglected2", 1, 0)
	b.woken("waited1", 1, 0)
	for _, id := range []string{"fresh1", "waiting1", "paused1", "deleted1", "parked1"} {
		if got := b.signals.of(id); got != nil {
			t.Errorf("%s was woken: %v", id, got)
		}
	}
}

func TestWakerForgetsRowsThatRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.park("acme", 1, property, 0)
	b.park("other", 1, property, 0)
	w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.Reload = often }))
	b.exec(`UPDATE runs SET parked = false WHERE id = 'acme1'`)
	b.eventually(func() bool { return w.Counters().Parked.Load() == 1 }, "a reload does not find it")
	reloads := w.Counters().Reloads.Load()
	b.eventually(func() bool { return w.Counters().Reloads.Load() > reloads }, "the reload ends")
	b.publish("Property", "")
	b.woken("other1", 1, b.generation("other1"))
	if got := b.signals.of("acme1"); got != nil {
		t.Errorf("a row that is not parked was woken: %v", got)
	}
}

func TestWakerPurges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Looked at in the order of their names.
	b.insert("busy", 1, `{}`, "cursor, deleted", "0, true")
	b.insert("closed", 1, `{}`, "cursor, deleted", "0, true")
	b.insert("living", 1, `{}`, "cursor", "0")
	b.signals.running = map[string]bool{"busy1": true}
	w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.Sweep = often }))
	rows := func() (ids []string) {
		b.check(b.pool.QueryRow(t.Context(), `SELECT array_agg(s.id ORDER BY s.id) FROM subscribers s JOIN runs USING (id)`).Scan(&ids))
		return ids
	}
	b.eventually(func() bool { return w.Counters().Purged.Load() == 1 }, "the closed one is purged")
	if diff := cmp.Diff([]string{"busy1", "living1"}, rows()); diff != "" {
		t.Errorf("rows left (-want +got):\n%s", diff)
	}
	b.signals.mu.Lock()
	b.signals.running = nil
	b.signals.mu.Unlock()
	b.eventually(func() bool { return cmp.Equal([]string{"living1"}, rows()) }, "the other one is purged once it has closed")
}

func TestWakerMovesCursors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.park("other", 3, `{"resourceNames": ["Member"]}`, 0)
	b.park("acme", 1, property, 0)
	w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.MoveCursors, c.BatchMax = often, 2 }))
	head := b.publish("Property", "")
	b.woken("acme1", 1, b.generation("acme1"))
	b.eventually(func() bool { return w.Counters().Moved.Load() == 3 }, "the cursors are moved")
	got := map[string]int64{}
	rows, err := b.pool.Query(t.Context(), `SELECT id, cursor FROM runs`)
	b.check(err)
	for rows.Next() {
		var id string
		var cursor int64
		b.check(rows.Scan(&id, &cursor))
		got[id] = cursor
	}
	b.check(rows.Err())
	want := map[string]int64{"other1": head, "other2": head, "other3": head, "acme1": 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	// A filter that changed meanwhile is not what was matched.
	b.exec(`UPDATE runs SET desired_version = 1, applied_version = 1 WHERE id = 'other1'`)
	next := b.publish("Property", "")
	b.eventually(func() bool { return w.Counters().Moved.Load() == 5 }, "the other cursors are moved")
	var cursor int64
	b.check(b.pool.QueryRow(t.Context(), `SELECT cursor FROM runs WHERE id = 'other1'`).Scan(&cursor))
	if cursor != head || next == head {
		t.Errorf("cursor under a changed filter moved from %d to %d", head, cursor)
	}
}

func TestWakerKeepsHouse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before     string
		partitions int
	}{
		"all of it": {`SELECT`, 9}, // today, seven days ahead, and the default
		// These days cannot have partitions of their own.
		"what fails keeps nothing else from being done": {
			`CREATE TABLE foreign_days PARTITION OF attempts FOR VALUES FROM ('2000-01-01') TO ('3000-01-01')`, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec(test.before)
			b.exec(`INSERT INTO idempotency_keys (feed_id, key, epoch, hash, sequence, expires_at)
				SELECT $1, 'k' || i, 1, sha256(''), i, clock_timestamp() - interval '1 second' FROM generate_series(1, 5) i`, b.feed.ID)
			b.exec(`INSERT INTO tokens (id, hash, role, created_by, revoked_at)
				SELECT 'aaaaaaaaa' || i, sha256(''), 'admin', 'admin', clock_timestamp() - interval '31 days' FROM generate_series(2, 6) i`)
			b.publish("Property", "")
			b.exec(`UPDATE feeds SET floor_sequence = $2 WHERE id = $1`, b.feed.ID, b.publish("Property", ""))
			b.wake(quick(func(c *worker.WakerConfig) { c.BatchMax = 2 }))
			b.eventually(func() bool {
				var keys, tokens, events, partitions int
				b.check(b.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM tokens), (SELECT count(*) FROM events),
					(SELECT count(*) FROM pg_inherits WHERE inhparent = 'attempts'::regclass)`).Scan(&keys, &tokens, &events, &partitions))
				return keys == 0 && tokens == 0 && events == 0 && partitions >= test.partitions
			}, "keys, tokens and events are removed and partitions made")
		})
	}
}

func TestWakerRate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.park("acme", 30, property, 0)
	b.publish("Property", "")
	began := time.Now()
	b.wake(quick(func(c *worker.WakerConfig) { c.WakesPerSecond, c.WakesBurst = 100, 10 }))
	b.eventually(func() bool { return b.signals.subscribers() == 30 }, "all are woken")
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("30 wakes took %s, want 20 of them at 100 a second", took)
	}
}
