package worker_test

import (
	"testing"
	"time"

	"postroad/eventlog"
	"postroad/worker"
)

// TestWakerRetains: the active waker removes old events in pieces, round after
// round, but none that a subscriber is owed, and moves the floor on as soon as it
// is not owed it any more.
func TestWakerRetains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	age := time.Minute
	_, err := b.log.UpdateFeed(t.Context(), b.feed.Name, eventlog.FeedPatch{Age: &age})
	b.check(err)
	for range 9 {
		b.publish("Property", "")
	}
	b.exec(`UPDATE events SET recorded_at = recorded_at - interval '1 hour' WHERE sequence <= 8`)
	b.insert("acme", 1, property, "cursor, paused", "5, true")
	w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.Retention, c.RemoveMax, c.RemovePause = often, 2, time.Millisecond }))
	left := func() (n int) {
		b.check(b.pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE feed_id = $1`, b.feed.ID).Scan(&n)) // not what is told of it
		return n
	}
	b.eventually(func() bool { return w.Counters().Removed.Load() == 5 }, "what nobody is owed is removed")
	b.exec(`UPDATE runs SET cursor = 9`)
	b.eventually(func() bool { return w.Counters().Removed.Load() == 8 }, "and so is what nobody is owed any more")
	if n := left(); n != 1 {
		t.Errorf("%d events are left", n)
	}
}

// TestWakerCompacts: the active waker keeps only the newest event of each record of
// a feed that is compacted, in pieces, as far as no subscriber is owed the others.
func TestWakerCompacts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	age := time.Minute
	_, err := b.log.UpdateFeed(t.Context(), b.feed.Name, eventlog.FeedPatch{CompactAfter: &age})
	b.check(err)
	for range 9 {
		b.publish("Property", "")
	}
	b.exec(`UPDATE events SET resource_key = 'k', recorded_at = recorded_at - interval '1 hour' WHERE sequence <= 8`)
	b.insert("acme", 1, property, "cursor, paused", "5, true")
	w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.Retention, c.RemoveMax, c.RemovePause = often, 2, time.Millisecond }))
	b.eventually(func() bool { return w.Counters().Compacted.Load() == 4 }, "what nobody is owed is compacted")
	b.exec(`UPDATE runs SET cursor = 9`)
	b.eventually(func() bool { return w.Counters().Compacted.Load() == 7 }, "and so is what nobody is owed any more")
	var left string
	b.check(b.pool.QueryRow(t.Context(), `SELECT string_agg(sequence::text, ' ' ORDER BY sequence) FROM events WHERE feed_id = $1`, b.feed.ID).Scan(&left))
	if left != "8 9" {
		t.Errorf("the events %s are left", left)
	}
}
