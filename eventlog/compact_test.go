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
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// compactAll compacts to the end, by at most that many events at once, and
// returns how many were removed.
func (b *bundle) compactAll(most int) int {
	b.t.Helper()
	for all := 0; ; {
		removed, more, err := b.log.Compact(b.t.Context(), most)
		must(b.t, err)
		if all += removed; !more {
			return all
		}
	}
}

func (b *bundle) compactAfter(feed eventlog.Feed, age time.Duration) {
	b.t.Helper()
	_, err := b.log.UpdateFeed(b.t.Context(), feed.Name, eventlog.FeedPatch{CompactAfter: &age})
	must(b.t, err)
}

// kept reads the numbers and keys of what a feed still has.
func (b *bundle) kept(feed eventlog.Feed) string {
	b.t.Helper()
	var all []string
	for _, e := range b.readAll(feed) {
		all = append(all, fmt.Sprintf("%d%s", e.Sequence, e.ResourceRecordKey))
	}
	return strings.Join(all, " ")
}

func TestCompact(t *testing.T) {
	t.Parallel()
	aside := func(sql string) func(b *bundle, feed eventlog.Feed) {
		return func(b *bundle, feed eventlog.Feed) {
			b.subscribe(feed, "s", 9, "{}", "")
			b.exec(sql)
		}
	}
	at := func(cursor int64, hold string) func(b *bundle, feed eventlog.Feed) {
		return func(b *bundle, feed eventlog.Feed) { b.subscribe(feed, "s", cursor, "{}", hold) }
	}
	const all, old, through3 = "1a 2b 3a 4c 5b 6a", "3a 4c 5b 6a", "2b 3a 4c 5b 6a"
	for name, test := range map[string]struct {
		after   time.Duration
		prepare func(b *bundle, feed eventlog.Feed)
		want    string
	}{
		"not asked for":               {want: all},
		"none is old enough":          {after: time.Hour, want: all},
		"nobody is owed them":         {after: time.Minute, want: old},
		"a subscriber is owed some":   {after: time.Minute, prepare: at(3, ""), want: through3},
		"one that is paused":          {after: time.Minute, prepare: at(3, "paused = true"), want: through3},
		"one that is halted":          {after: time.Minute, prepare: at(2, "halted_reason = 'x'"), want: all},
		"one that is deleted":         {after: time.Minute, prepare: at(0, "deleted = true"), want: old},
		"one that begins":             {after: time.Minute, prepare: at(0, ""), want: all},
		"another feed's":              {after: time.Minute, prepare: func(b *bundle, _ eventlog.Feed) { b.subscribe(b.readFeed("default"), "s", 0, "{}", "") }, want: old},
		"one waits behind a held key": {after: time.Minute, prepare: aside(`INSERT INTO held_events (subscriber, sequence, resource_name, resource_key) VALUES ('s', 4, 'Property', 'c')`), want: through3},
		"one is a dead letter":        {after: time.Minute, prepare: aside(`INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason) VALUES ('s', 1, 'Property', 'a', 'skipped')`), want: all},
		"they are being sent again":   {after: time.Minute, prepare: aside(`INSERT INTO replays (subscriber, id, state, selection, after_sequence, through_sequence, total, source, cursor) VALUES ('s', 1, 'paused', '{}', 0, 6, 6, 'api', 3)`), want: through3},
		"they were sent again":        {after: time.Minute, prepare: aside(`INSERT INTO replays (subscriber, id, state, selection, after_sequence, through_sequence, total, source, cursor) VALUES ('s', 1, 'done', '{}', 0, 6, 6, 'api', 3)`), want: old},
		"a seek back is to come": {after: time.Minute, want: through3, prepare: func(b *bundle, f eventlog.Feed) {
			b.subscribe(f, "s", 9, "{}", "moves = 1, desired_version = 1")
			b.exec(`INSERT INTO controls (subscriber, version, request_id, kind, args, source) VALUES ('s', 1, 'r', 'seek', '{"to": 3}', 'api')`)
		}},
		"other records of equal key": {after: time.Minute, want: "3a 4c 5b 6a 7a", prepare: func(b *bundle, f eventlog.Feed) {
			b.append(f, event.Event{ResourceName: "Member", ResourceRecordKey: "a"})
			b.append(b.readFeed("default"), record("c"), record("b"))
			b.exec(`UPDATE events SET recorded_at = clock_timestamp() - interval '1 hour' WHERE resource_name = 'Member' OR feed_id <> $1`, f.ID)
		}},
	} {
		for _, most := range []int{1, 2, 100} {
			t.Run(fmt.Sprint(name, ", by ", most), func(t *testing.T) {
				t.Parallel()
				b := setup(t, eventlog.Config{})
				feed := b.newFeed("f", "")
				for _, key := range []string{"a", "b", "a", "c", "b", "a"} {
					b.append(feed, record(key))
				}
				b.grow(feed, 5, 10*time.Minute) // the last one is young
				if test.prepare != nil {
					test.prepare(b, feed)
				}
				if test.after != 0 {
					b.compactAfter(feed, test.after)
				}
				removed := b.compactAll(most)
				if got := b.kept(feed); got != test.want {
					t.Errorf("there are %s, want %s", got, test.want)
				}
				if left := len(strings.Fields(test.want)); removed != b.highest(feed)-left {
					t.Errorf("removed %d, %d are left", removed, left)
				}
				if again := b.compactAll(most); again != 0 {
					t.Errorf("removed %d more", again)
				}
			})
		}
	}
}

func (b *bundle) highest(feed eventlog.Feed) int { return int(b.readFeed(feed.Name).Head) }

// TestCompactGoesOn: wherever subscribers and the age let it stop, each record has
// its newest event of those up to there, and all above.
func TestCompactGoesOn(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(8, 8))
	b := setup(t, eventlog.Config{})
	feed := b.newFeed("f", "")
	b.compactAfter(feed, time.Minute)
	b.subscribe(feed, "s", 0, "{}", "")
	published := []event.Event{}
	cursor, aged, through := int64(0), int64(0), int64(0)
	for range 40 {
		events := mixed(draw.IntN(30), draw)
		if len(events) > 0 {
			b.append(feed, events...)
			published = append(published, events...)
		}
		head := int64(len(published))
		cursor += draw.Int64N(head - cursor + 1)
		aged += draw.Int64N(head - aged + 1)
		b.exec(`UPDATE runs SET cursor = $1`, cursor)
		b.grow(feed, aged, time.Hour)
		b.compactAll(1 + draw.IntN(20))
		if reached := min(cursor, aged); reached > through {
			through = reached
		}
		last := map[event.Key]int{}
		for i, e := range published[:through] {
			last[e.Key()] = i
		}
		var want, got []int64
		for i, e := range published {
			if i >= int(through) || last[e.Key()] == i {
				want = append(want, int64(i+1))
			}
		}
		for _, e := range b.readAll(feed) {
			got = append(got, e.Sequence)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("cursor %d, old through %d: %s", cursor, aged, diff)
		}
		if f := b.readFeed("f"); f.CompactedThrough != through || f.Head != head {
			t.Fatalf("%+v, want compacted through %d", f, through)
		}
	}
}

// TestCompactedReads: readers of what was compacted get what is left, and are told;
// numbers, idempotency keys and the head stay.
func TestCompactedReads(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	feed := b.newFeed("f", "")
	keyed := record("a")
	keyed.IdempotencyKey = "once"
	b.append(feed, keyed, record("b"), record("a"), record("a"), record("b"))
	b.grow(feed, 3, time.Hour)
	if page, err := b.log.Read(t.Context(), feed.ID, 0, 10); err != nil || page.CompactedThrough != 0 || len(page.Events) != 5 {
		t.Fatalf("%+v, %v", page, err)
	}
	b.compactAfter(feed, time.Minute)
	if n := b.compactAll(10); n != 1 {
		t.Fatalf("removed %d", n)
	}
	for after := range int64(4) {
		page, err := b.log.Read(t.Context(), feed.ID, after, 10)
		must(t, err)
		if page.CompactedThrough != 3 || page.FirstSequence != 1 || page.Head != 5 || page.Next != 5 || page.Events[0].Sequence != max(2, after+1) {
			t.Errorf("after %d: %+v", after, page)
		}
	}
	follower := b.log.Follow(feed.ID, 0, event.Filter{})
	defer follower.Close()
	if events, scanned, err := follower.Next(t.Context(), 10, 1<<20); err != nil || len(events) != 4 || scanned != 5 {
		t.Errorf("a follower gets %d events through %d, %v", len(events), scanned, err)
	}
	if total, first, _, err := b.log.Count(t.Context(), feed.ID, eventlog.Selection{Through: 5}); err != nil || total != 4 || first != 2 {
		t.Errorf("counted %d from %d, %v", total, first, err)
	}
	if _, err := b.log.ReadOne(t.Context(), feed.ID, 1); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("one that was removed: %v", err)
	}
	if r := b.append(feed, keyed); r.First != 1 || r.Duplicates != 1 {
		t.Errorf("the same idempotency key again: %+v", r)
	}
	if r := b.append(feed, record("c")); r.First != 6 {
		t.Errorf("the next event got the number %d", r.First)
	}
	b.keep(feed, time.Minute, 0)
	must(t, b.log.Retain(t.Context(), 10))
	if page, err := b.log.Read(t.Context(), feed.ID, 3, 10); err != nil || page.FirstSequence != 4 || page.CompactedThrough != 0 {
		t.Errorf("above a floor that passed it nothing is compacted: %+v, %v", page, err)
	}
}

// TestCompactionUnderLoad: while it is published, read and compacted at once, by
// steps that are broken off, every subscriber gets every event; in the end each
// record has one.
func TestCompactionUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{RingEvents: 64, PageRows: 50})
	b.compactAfter(b.feed, time.Minute)
	const total, keys = 3_000, 20
	done := make(chan struct{})
	var publishing, reading, compacting sync.WaitGroup
	publishing.Go(func() {
		for n := 0; n < total; n += keys {
			if _, err := b.log.Append(t.Context(), b.feed, records(keys)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 4 {
		b.subscribe(b.feed, fmt.Sprint("s", i), 0, "{}", "")
		reading.Go(func() { b.subscriberReads(fmt.Sprint("s", i), total) })
	}
	compacting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			b.grow(b.feed, math.MaxInt64, time.Hour)
			ctx, cancel := context.WithTimeout(b.t.Context(), rand.N(200*time.Millisecond))
			_, _, _ = b.log.Compact(ctx, 30)
			cancel()
		}
	})
	publishing.Wait()
	reading.Wait()
	close(done)
	compacting.Wait()
	if b.readFeed("default").CompactedThrough == 0 {
		t.Error("nothing was compacted beside the readers")
	}
	b.grow(b.feed, math.MaxInt64, time.Hour)
	b.compactAll(100)
	var kept string
	must(t, b.pool.QueryRow(t.Context(), `SELECT min(sequence) || ' ' || count(*) || ' ' || count(DISTINCT resource_key) FROM events`).Scan(&kept))
	if want := fmt.Sprint(total-keys+1, keys, keys); kept != want {
		t.Errorf("the first one kept, how many, of how many records: %s, want %s", kept, want)
	}
}

// TestCompactReadsLittle: a step of compaction costs what it looks at and what its
// records have, whatever statistics say.
func TestCompactReadsLittle(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	fill := func() {
		b.exec(`DELETE FROM events`)
		b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
			SELECT $1, n, clock_timestamp() - interval '1 hour', 'Property', 'k' || n % 10000 FROM generate_series(1, 40000) n`, b.feed.ID)
		b.exec(`UPDATE feeds SET compacted_through = 20000 WHERE id = $1`, b.feed.ID)
	}
	config, err := store.PoolConfig(b.url)
	must(t, err)
	var seen statements
	config.ConnConfig.Tracer, config.MaxConns = &seen, 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	defer pool.Close()
	log := eventlog.New(pool, eventlog.Config{})
	b.compactAfter(b.feed, time.Minute)
	for _, statistics := range []string{"none", "fresh"} {
		fill()
		if statistics == "fresh" {
			b.exec(`ANALYZE events`)
		}
		seen.made = nil
		if removed, more, err := log.Compact(t.Context(), 100); err != nil || !more || removed != 200 { // two older ones each
			t.Fatalf("removed %d, more %t, %v", removed, more, err)
		}
		fill()
		read := 0
		for _, made := range seen.made {
			if n := b.rowsRead(made.SQL, made.Args...); n > 1_500 {
				t.Errorf("statistics %s: %d rows were read:\n%s", statistics, n, made.SQL)
			} else {
				read += n
			}
		}
		if read < 500 {
			t.Errorf("only %d rows were seen to be read by %d statements", read, len(seen.made))
		}
	}
}
