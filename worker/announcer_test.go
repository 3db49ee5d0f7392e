package worker_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/eventlog"
	"postroad/store"
	"postroad/worker"
)

// announcing is a configuration in which only telling goes on.
func announcing() worker.WakerConfig {
	return quick(func(c *worker.WakerConfig) { c.Announce.Every = often })
}

// halt halts subscribers <prefix>1 to <prefix>n by a checkpoint each.
func (b *bundle) halt(prefix string, n int) {
	b.t.Helper()
	for i := range n {
		c := store.Checkpoint{ID: fmt.Sprint(prefix, i+1), Lease: uuid.New(), Halt: "the endpoint failed for 7d without a break, last: HTTP 503 from the consumer"}
		b.exec(`UPDATE runs SET lease = $2 WHERE id = $1`, c.ID, c.Lease)
		_, err := b.store.WriteCheckpoints(b.t.Context(), []*store.Checkpoint{&c})
		b.check(err)
	}
}

// told reads the feed _system, as "type key" each.
func (b *bundle) told() []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT coalesce(event_type, '') || ' ' || resource_key FROM events
		WHERE feed_id = (SELECT id FROM feeds WHERE name = '_system') ORDER BY sequence`)
	b.check(err)
	defer rows.Close()
	told := []string{}
	for rows.Next() {
		var s string
		b.check(rows.Scan(&s))
		told = append(told, s)
	}
	b.check(rows.Err())
	return told
}

func (b *bundle) allTold() bool {
	b.t.Helper()
	var n int
	b.check(b.pool.QueryRow(b.t.Context(), `SELECT count(*) FROM notices`).Scan(&n))
	return n == 0
}

func (b *bundle) wantTold(want ...string) {
	b.t.Helper()
	b.eventually(b.allTold, "all is told")
	if diff := cmp.Diff(want, b.told()); diff != "" {
		b.t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestAnnouncer(t *testing.T) {
	t.Parallel()
	t.Run("one that died after telling and before removing", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.insert("acme", 3, property, "cursor", "0")
		b.halt("acme", 2)
		n, err := b.store.Notices(t.Context(), 10)
		b.check(err)
		feed, err := b.log.Feed(t.Context(), eventlog.SystemFeed)
		b.check(err)
		_, err = b.log.Append(t.Context(), feed, n.Events)
		b.check(err)
		b.halt("acme", 3) // the first two are halted already
		b.wake(announcing())
		b.wantTold("subscriber.halted acme1", "subscriber.halted acme2", "subscriber.halted acme3")
	})
	t.Run("more than fit at once, while the active one changes", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		const n = 60
		b.insert("acme", n, property, "cursor", "0")
		config := announcing()
		config.Announce.Every, config.Announce.Max = time.Millisecond, 7
		_, stop := b.start(config)
		halted := make(chan struct{})
		go func() {
			defer close(halted)
			b.halt("acme", n)
		}()
		for going := true; going; {
			select {
			case <-halted:
				going = false
			default:
			}
			stop()
			var w *worker.Waker
			w, stop = b.start(config)
			b.eventually(func() bool { return w.Counters().Active.Load() == 1 }, "the next one is active")
		}
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint("subscriber.halted acme", i+1))
		}
		b.wantTold(want...)
	})
	t.Run("one that the log refuses", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.insert("acme", 3, property, "cursor", "0")
		b.halt("acme", 3)
		n, err := b.store.Notices(t.Context(), 10)
		b.check(err)
		feed, err := b.log.Feed(t.Context(), eventlog.SystemFeed)
		b.check(err)
		n.Events[1].Data = json.RawMessage(`"in other words"`) // by a process of another release
		_, err = b.log.Append(t.Context(), feed, n.Events[1:2])
		b.check(err)
		b.wake(announcing())
		b.wantTold("subscriber.halted acme2", "subscriber.halted acme1", "subscriber.halted acme3")
	})
}

// TestAlerts: whoever falls behind its alert is told of, and whoever caught up.
func TestAlerts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert("acme", 3, property, "cursor, paused", "0, true")
	b.exec(`UPDATE subscribers SET config = config || '{"alert": {"lagSeconds": 1}}' WHERE id <> 'acme2'`)
	b.publish("Property", "")
	b.exec(`UPDATE events SET recorded_at = recorded_at - interval '5 s'`)
	config := announcing()
	config.Announce.Lag, config.BatchMax = often, 1
	b.wake(config)
	b.eventually(func() bool { return len(b.told()) == 2 }, "both are told of")
	b.exec(`UPDATE runs SET cursor = 1`)
	b.eventually(func() bool { return len(b.told()) == 4 }, "both caught up")
	got := b.told()
	slices.Sort(got) // either may have been looked at first
	want := []string{"subscriber.behind acme1", "subscriber.behind acme3", "subscriber.recovered acme1", "subscriber.recovered acme3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestLasting: a feed that a subscriber keeps from being shortened and a token
// that ends soon are told of once, however often it is looked.
func TestLasting(t *testing.T) {
	t.Parallel()
	b := setup(t)
	age := time.Minute
	for _, name := range []string{b.feed.Name, eventlog.SystemFeed} {
		_, err := b.log.UpdateFeed(t.Context(), name, eventlog.FeedPatch{Age: &age})
		b.check(err)
	}
	b.insert("acme", 1, property, "cursor, paused", "0, true")
	b.publish("Property", "")
	system, err := b.log.Feed(t.Context(), eventlog.SystemFeed)
	b.check(err)
	b.feed = system
	b.insert("pager", 1, property, "cursor, paused", "0, true")
	b.publish("Subscriber", "")
	b.exec(`UPDATE events SET recorded_at = recorded_at - interval '1 hour'`)
	var ids []string
	for _, ends := range []time.Duration{time.Hour, 24 * time.Hour, 30 * 24 * time.Hour} {
		at := time.Now().Add(ends)
		token, _, err := b.store.CreateToken(t.Context(), store.TokenSpec{Role: store.RoleReader, Feeds: []string{"default"}, CreatedBy: "admin", ExpiresAt: &at})
		b.check(err)
		ids = append(ids, token.ID)
	}
	config := announcing()
	config.Announce.Lasting = often
	w, _ := b.wake(config)
	b.eventually(func() bool { return w.Counters().Announced.Load() == 3 }, "all is told")
	b.exec(`DELETE FROM told WHERE type = 'log.pinned'`) // it is told again when it looked again
	b.eventually(func() bool { return w.Counters().Announced.Load() == 4 }, "it looks again")
	b.wantTold(" 1", "log.pinned default", "token.expiring "+ids[0], "token.expiring "+ids[1], "log.pinned default")
	var texts []string
	rows, err := b.pool.Query(t.Context(), `SELECT data FROM events WHERE event_type <> '' AND resource_name <> 'Subscriber' ORDER BY sequence`)
	b.check(err)
	defer rows.Close()
	for rows.Next() {
		var data string
		b.check(rows.Scan(&data))
		texts = append(texts, data)
	}
	for i, part := range []string{"still owed them", " (reader default) ends "} {
		if !strings.Contains(texts[i], part) {
			t.Errorf("no %q in %s", part, texts[i])
		}
	}
}
