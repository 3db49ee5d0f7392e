package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

// subscribe makes a subscriber at a position; hold is what else its row says.
func (b *bundle) subscribe(feed eventlog.Feed, id string, cursor int64, filter, hold string) {
	b.t.Helper()
	b.exec(`INSERT INTO subscribers (id, feed_id, config, secrets) VALUES ($1, $2, jsonb_build_object('filter', $3::jsonb), '')`, id, feed.ID, filter)
	b.exec(`INSERT INTO runs (id, feed_id, cursor) VALUES ($1, $2, $3)`, id, feed.ID, cursor)
	if hold != "" {
		b.exec(`UPDATE runs SET `+hold+` WHERE id = $1`, id)
	}
}

// grow makes the events of a feed up to one as old as that.
func (b *bundle) grow(feed eventlog.Feed, through int64, age time.Duration) {
	b.t.Helper()
	b.exec(`UPDATE events SET recorded_at = clock_timestamp() - $3::interval WHERE feed_id = $1 AND sequence <= $2`, feed.ID, through, age)
}

func (b *bundle) keep(feed eventlog.Feed, age, hardAge time.Duration) {
	b.t.Helper()
	_, err := b.log.UpdateFeed(b.t.Context(), feed.Name, eventlog.FeedPatch{Age: &age, HardAge: &hardAge})
	must(b.t, err)
}

func (b *bundle) floor(feed eventlog.Feed) int64 {
	b.t.Helper()
	return b.readFeed(feed.Name).FloorSequence
}

func TestRetain(t *testing.T) {
	t.Parallel()
	const old = 10 * time.Minute
	behind := func(hold string) func(b *bundle, feed eventlog.Feed) {
		return func(b *bundle, feed eventlog.Feed) { b.subscribe(feed, "s", 3, "{}", hold) }
	}
	for name, test := range map[string]struct {
		age, hardAge time.Duration
		prepare      func(b *bundle, feed eventlog.Feed)
		want         int64
	}{
		"kept for ever":                {},
		"nobody is owed them":          {age: time.Minute, want: 6},
		"none is old enough":           {age: time.Hour},
		"a subscriber is":              {age: time.Minute, prepare: behind(""), want: 3},
		"one that is paused":           {age: time.Minute, prepare: behind("paused = true"), want: 3},
		"one that is halted":           {age: time.Minute, prepare: behind("halted_reason = 'x'"), want: 3},
		"one that is disabled":         {age: time.Minute, prepare: behind("disabled = true"), want: 3},
		"one that is parked":           {age: time.Minute, prepare: behind("parked = true"), want: 3},
		"one that is deleted is not":   {age: time.Minute, prepare: behind("deleted = true"), want: 6},
		"one that is further on":       {age: time.Minute, prepare: func(b *bundle, f eventlog.Feed) { b.subscribe(f, "s", 8, "{}", "") }, want: 6},
		"one that begins":              {age: time.Minute, prepare: func(b *bundle, f eventlog.Feed) { b.subscribe(f, "s", 0, "{}", "") }},
		"hard, whoever is owed them":   {hardAge: time.Minute, prepare: behind("paused = true"), want: 6},
		"hard, and none is old enough": {age: time.Minute, hardAge: time.Hour, prepare: behind(""), want: 3},
		"hard for the oldest, by age for others": {age: time.Minute, hardAge: time.Hour, want: 5, prepare: func(b *bundle, f eventlog.Feed) {
			b.grow(f, 2, 2*time.Hour)
			b.subscribe(f, "last", 1, "{}", "")
			b.exec(`UPDATE runs SET cursor = 5 WHERE id = 'last'`)
		}},
		"another feed's subscriber": {age: time.Minute, want: 6, prepare: func(b *bundle, _ eventlog.Feed) {
			b.subscribe(b.readFeed("default"), "s", 0, "{}", "")
		}},
		"the lowest of many": {age: time.Minute, want: 2, prepare: func(b *bundle, f eventlog.Feed) {
			for i, cursor := range []int64{4, 2, 9} {
				b.subscribe(f, fmt.Sprint("s", i), cursor, "{}", "")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, eventlog.Config{})
			feed := b.newFeed("f", "")
			b.append(feed, records(9)...)
			b.grow(feed, 6, old)
			if test.prepare != nil {
				test.prepare(b, feed)
			}
			b.keep(feed, test.age, test.hardAge)
			for range 2 {
				must(t, b.log.Retain(t.Context(), 2))
			}
			if got := b.floor(feed); got != test.want {
				t.Fatalf("the floor is at %d, want %d", got, test.want)
			}
			_, err := b.log.ReapDeleted(t.Context(), 100)
			must(t, err)
			var left int64
			must(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE feed_id = $1`, feed.ID).Scan(&left))
			if left != 9-test.want {
				t.Errorf("%d events are left above %d", left, test.want)
			}
			if r := b.append(b.readFeed("f"), record("next")); r.First != 10 {
				t.Errorf("the next event got the number %d", r.First)
			}
		})
	}
}

// TestRetainAll: a feed all of whose events are gone goes on above them; numbers
// may lie as far apart as there are.
func TestRetainAll(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	feed := b.newFeed("f", eventlog.SequencesSupplied)
	b.append(feed, numbered(7, "a"), numbered(1<<40, "b"), numbered(math.MaxInt64-1, "c"))
	b.keep(feed, time.Minute, 0)
	b.grow(feed, 1<<40, time.Hour)
	must(t, b.log.Retain(t.Context(), 10))
	if got := b.floor(feed); got != 1<<40 {
		t.Errorf("the floor is at %d, want it at the last old event", got)
	}
	b.grow(feed, math.MaxInt64, time.Hour)
	must(t, b.log.Retain(t.Context(), 10))
	if n, err := b.log.ReapDeleted(t.Context(), 10); n != 3 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if f := b.readFeed("f"); f.Head != math.MaxInt64-1 || f.FloorSequence != f.Head {
		t.Errorf("%+v", f)
	}
	if r := b.append(feed, numbered(math.MaxInt64, "d")); r.Accepted != 1 {
		t.Errorf("%+v", r)
	}
}

type lostRow struct {
	Events, Through int64
	At              bool
}

func (b *bundle) lost() map[string]lostRow {
	b.t.Helper()
	got := map[string]lostRow{}
	rows, err := b.pool.Query(b.t.Context(), `SELECT id, lost_events, lost_through, lost_at IS NOT NULL FROM runs`)
	must(b.t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		var r lostRow
		must(b.t, rows.Scan(&id, &r.Events, &r.Through, &r.At))
		got[id] = r
	}
	must(b.t, rows.Err())
	return got
}

// TestRetainNotesLosses: who loses what is told on its row, event by event that
// it would have got, whatever the pieces are that the floor is raised in.
func TestRetainNotesLosses(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 3, 100} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			b := setup(t, eventlog.Config{})
			for i := range 12 {
				name := []string{"Property", "Member"}[i%2]
				b.append(b.feed, event.Event{ResourceName: name, ResourceRecordKey: "k"})
			}
			b.subscribe(b.feed, "all", 2, "{}", "paused = true")
			b.subscribe(b.feed, "properties", 4, `{"resourceNames": ["Property"]}`, "")
			b.subscribe(b.feed, "offices", 0, `{"resourceNames": ["Office"]}`, "")
			b.subscribe(b.feed, "ahead", 11, "{}", "")
			b.subscribe(b.feed, "deleted", 0, "{}", "deleted = true")
			b.keep(b.feed, 0, time.Minute)
			b.grow(b.feed, 8, time.Hour)
			must(t, b.log.Retain(t.Context(), most))
			want := map[string]lostRow{
				"all": {6, 8, true}, "properties": {2, 7, true}, "offices": {}, "ahead": {}, "deleted": {},
			}
			if diff := cmp.Diff(want, b.lost()); diff != "" || b.floor(b.feed) != 8 {
				t.Errorf("floor at %d; lost (-want +got):\n%s", b.floor(b.feed), diff)
			}
			b.exec(`UPDATE runs SET cursor = 9 WHERE id = 'all'`)
			b.grow(b.feed, 12, time.Hour)
			must(t, b.log.Retain(t.Context(), most))
			want["all"], want["properties"], want["ahead"] = lostRow{9, 12, true}, lostRow{4, 11, true}, lostRow{1, 12, true}
			if diff := cmp.Diff(want, b.lost()); diff != "" {
				t.Errorf("lost after more was removed (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRetainWaitsForNewSubscribers: a floor is not raised past a subscriber that
// is being made.
func TestRetainWaitsForNewSubscribers(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.append(b.feed, records(5)...)
	b.keep(b.feed, time.Minute, 0)
	b.grow(b.feed, 5, time.Hour)
	conn := b.connect()
	must(t, errors.Join(
		exec(conn, `BEGIN`), exec(conn, `SELECT FROM feeds WHERE id = $1 FOR SHARE`, b.feed.ID),
		exec(conn, `INSERT INTO subscribers (id, feed_id, config, secrets) VALUES ('s', $1, '{}', '')`, b.feed.ID),
		exec(conn, `INSERT INTO runs (id, feed_id, cursor) VALUES ('s', $1, 2)`, b.feed.ID)))
	retained := make(chan error, 1)
	go func() { retained <- b.log.Retain(t.Context(), 10) }()
	testkit.Eventually(t, soon, func() bool {
		var waits bool
		must(t, b.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits))
		return waits
	}, "the floor waits for the subscriber")
	must(t, exec(conn, `COMMIT`))
	must(t, <-retained)
	if got := b.floor(b.feed); got != 2 {
		t.Errorf("the floor is at %d, past a subscriber at 2", got)
	}
}

func TestRetentionRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	second, minute, hour := time.Second, time.Minute, time.Hour
	for name, patch := range map[string]eventlog.FeedPatch{
		"age below the least":           {Age: &second},
		"hard age below the least":      {HardAge: &second},
		"hard age below age":            {Age: &hour, HardAge: &minute},
		"hard age below the age it had": {HardAge: &minute},
		"age above the hard age it had": {Age: &hour},
	} {
		t.Run(name, func(t *testing.T) {
			feed := b.newFeed(strings.ReplaceAll(name, " ", "-"), "")
			if strings.HasPrefix(name, "age above") {
				b.keep(feed, 0, minute)
			} else {
				b.keep(feed, hour, 0)
			}
			var faults event.FieldErrors
			if _, err := b.log.UpdateFeed(t.Context(), feed.Name, patch); !errors.As(err, &faults) {
				t.Errorf("got %v, want it refused", err)
			}
		})
	}
}

func TestPinned(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	free, kept := b.newFeed("free", ""), b.newFeed("kept", "")
	for _, feed := range []eventlog.Feed{b.feed, free, kept} {
		b.append(feed, records(4)...)
		b.grow(feed, 4, time.Hour)
	}
	b.keep(b.feed, 10*time.Minute, 0)
	b.keep(free, 10*time.Minute, 0)
	b.subscribe(b.feed, "far", 3, "{}", "")
	b.subscribe(b.feed, "furthest", 2, "{}", "halted_reason = 'x'")
	b.subscribe(kept, "behind", 1, "{}", "")
	must(t, b.log.Retain(t.Context(), 10))
	pinned, err := b.log.Pinned(t.Context(), time.Minute, 10)
	must(t, err)
	if len(pinned) != 1 {
		t.Fatalf("%+v", pinned)
	}
	p := pinned[0]
	if p.Feed != "default" || p.Subscriber != "furthest" || p.Cursor != 2 || p.OldestSequence != 3 ||
		p.For < 50*time.Minute || p.For > 55*time.Minute || p.Since.Sub(p.OldestAt) != 10*time.Minute {
		t.Errorf("%+v", p)
	}
	if pinned, err = b.log.Pinned(t.Context(), time.Hour, 10); len(pinned) != 0 || err != nil {
		t.Errorf("pinned for an hour: %+v, %v", pinned, err)
	}
}

// TestRingNeverHidesAGap: events that were removed before they came into memory
// are told of, to who reads on and to who waits.
func TestRingNeverHidesAGap(t *testing.T) {
	t.Parallel()
	for name, raise := range map[string]string{
		"found with the next events": `UPDATE feeds SET floor_sequence = 3 WHERE id = $1`,
		"told by itself":             `UPDATE feeds SET floor_sequence = 5, changed = pg_current_xact_id() WHERE id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, eventlog.Config{})
			behind := eventlog.New(b.pool, eventlog.Config{}) // looks when it is told to
			reads, waits := behind.Follow(b.feed.ID, 0, event.Filter{}), behind.Follow(b.feed.ID, 0, event.Filter{ResourceNames: []string{"None"}})
			defer reads.Close()
			defer waits.Close()
			must(t, behind.Look(t.Context(), ""))
			roused := make(chan error, 1)
			go func() { roused <- waits.Wait(t.Context()) }()
			testkit.Eventually(t, soon, func() bool { return behind.Waiting(b.feed.ID) == 1 }, "it waits")
			b.append(b.feed, records(5)...)
			b.exec(raise, b.feed.ID)
			_, err := b.log.ReapDeleted(t.Context(), 100)
			must(t, err)
			must(t, behind.Look(t.Context(), ""))
			must(t, <-roused)
			var below *eventlog.BelowFloorError
			for who, f := range map[string]*eventlog.Follower{"who reads on": reads, "who waits": waits} {
				if events, _, err := f.Next(t.Context(), 10, 1<<20); !errors.As(err, &below) {
					t.Errorf("%s got %d events and %v, want to be told that some are gone", who, len(events), err)
				}
			}
		})
	}
}

// TestRingForgetsWhatIsRemoved: memory serves no more than the database does.
func TestRingForgetsWhatIsRemoved(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	keeper := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer keeper.Close()
	must(t, keeper.Wait(waitFor(t, b, 5)))
	b.keep(b.feed, time.Minute, 0)
	b.grow(b.feed, 3, time.Hour)
	must(t, b.log.Retain(t.Context(), 10))
	var below *eventlog.BelowFloorError
	testkit.Eventually(t, soon, func() bool {
		f := b.log.Follow(b.feed.ID, 0, event.Filter{})
		defer f.Close()
		_, _, err := f.Next(t.Context(), 10, 1<<20)
		return errors.As(err, &below) && below.FirstSequence == 4
	}, "a follower is told of the floor")
	f := b.log.Follow(b.feed.ID, 3, event.Filter{})
	defer f.Close()
	if events, _, err := f.Next(t.Context(), 10, 1<<20); err != nil || len(events) != 2 || events[0].Sequence != 4 {
		t.Errorf("above the floor: %d events, %v", len(events), err)
	}
}

// waitFor appends n events to the default feed and returns the test's context.
func waitFor(t *testing.T, b *bundle, n int) context.Context {
	t.Helper()
	b.append(b.feed, records(n)...)
	return t.Context()
}

// TestRetentionUnderLoad publishes, reads and removes at once. Under an age no
// subscriber loses an event, wherever it rests; a reader that is no subscriber
// sees every event or is told which one comes next. A removal that is broken off
// is gone on with.
func TestRetentionUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{RingEvents: 64, PageRows: 50})
	b.keep(b.feed, time.Minute, 0)
	const total = 4_000
	done := make(chan struct{})
	var publishing, reading, removing sync.WaitGroup
	publishing.Go(func() {
		for n := 0; n < total; n += 20 {
			if _, err := b.log.Append(t.Context(), b.feed, records(20)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 4 {
		b.subscribe(b.feed, fmt.Sprint("s", i), 0, "{}", "")
		reading.Go(func() { b.subscriberReads(fmt.Sprint("s", i), total) })
		reading.Go(func() { b.othersRead(total, i%2 == 0) })
	}
	removing.Go(func() { b.removeUntil(done) })
	publishing.Wait()
	reading.Wait()
	close(done)
	removing.Wait()
	b.grow(b.feed, total, time.Hour)
	must(t, b.log.Retain(t.Context(), 100))
	if got := b.floor(b.feed); got != total {
		t.Errorf("the floor is at %d in the end, want %d", got, total)
	}
	if _, err := b.log.ReapDeleted(t.Context(), total); err != nil {
		t.Error(err)
	}
	var left int
	must(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM events`).Scan(&left))
	if left != 0 {
		t.Errorf("%d events are left of those that were to be removed", left)
	}
}

// removeUntil ages, raises and removes, each step broken off now and then.
func (b *bundle) removeUntil(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		b.grow(b.feed, math.MaxInt64, time.Hour)
		ctx, cancel := context.WithTimeout(b.t.Context(), rand.N(20*time.Millisecond))
		_ = b.log.Retain(ctx, 10)
		_, _ = b.log.ReapDeleted(ctx, 30)
		cancel()
	}
}

// subscriberReads goes through the feed as a run does, resting now and then.
func (b *bundle) subscriberReads(id string, total int64) {
	f := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer func() { f.Close() }()
	cursor := int64(0)
	for cursor < total {
		events, _, err := f.Next(b.t.Context(), 1+rand.N(40), 1<<20)
		if err != nil {
			b.t.Errorf("subscriber %s at %d: %v", id, cursor, err)
			return
		}
		for _, e := range events {
			if e.Sequence != cursor+1 {
				b.t.Errorf("subscriber %s lost the events between %d and %d", id, cursor, e.Sequence)
				return
			}
			cursor = e.Sequence
		}
		switch {
		case len(events) == 0:
			_ = f.Wait(b.t.Context())
		case rand.N(3) == 0:
			b.exec(`UPDATE runs SET cursor = $2 WHERE id = $1`, id, cursor)
		case rand.N(20) == 0: // as after a crash: on from what the row says
			f.Close()
			if err := b.pool.QueryRow(b.t.Context(), `SELECT cursor FROM runs WHERE id = $1`, id).Scan(&cursor); err != nil {
				b.t.Error(err)
				return
			}
			f = b.log.Follow(b.feed.ID, cursor, event.Filter{})
		}
	}
	b.exec(`UPDATE runs SET cursor = $2 WHERE id = $1`, id, cursor)
}

// othersRead goes through the feed as who holds nothing back: by pages, or by
// following.
func (b *bundle) othersRead(total int64, pages bool) {
	position := int64(0)
	f := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer func() { f.Close() }()
	next := func() (events []event.Event, err error) {
		if pages {
			page, err := b.log.Read(b.t.Context(), b.feed.ID, position, 30)
			return page.Events, err
		}
		shared, _, err := f.Next(b.t.Context(), 30, 1<<20)
		for _, e := range shared {
			events = append(events, *e)
		}
		return events, err
	}
	for position < total {
		events, err := next()
		var below *eventlog.BelowFloorError
		if errors.As(err, &below) {
			if below.FirstSequence <= position+1 {
				b.t.Errorf("at %d it is told that the first event is %d", position, below.FirstSequence)
				return
			}
			position = below.FirstSequence - 1
			f.Close()
			f = b.log.Follow(b.feed.ID, position, event.Filter{})
			continue
		}
		if err != nil {
			b.t.Error(err)
			return
		}
		for _, e := range events {
			if e.Sequence != position+1 {
				b.t.Errorf("a gap between %d and %d that nobody told of", position, e.Sequence)
				return
			}
			position = e.Sequence
		}
	}
}
