package eventlog_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/eventlog"
)

func TestFeeds(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	if b.feed.Epoch != 1 || b.feed.Sequences != eventlog.SequencesAssigned || b.feed.Version != 1 {
		t.Errorf("the default feed is %+v", b.feed)
	}
	for _, name := range []string{"b-feed", "a", "b0", "z"} {
		b.newFeed(name, "")
	}
	t.Run("a name is taken once", func(t *testing.T) {
		for _, name := range []string{"a", "default", "_system"} {
			if _, err := b.log.CreateFeed(t.Context(), eventlog.FeedSpec{Name: name}); !errors.Is(err, eventlog.ErrExists) {
				t.Errorf("%s: got %v, want ErrExists", name, err)
			}
		}
	})
	t.Run("members are checked", func(t *testing.T) {
		for _, spec := range []eventlog.FeedSpec{
			{Name: ""},
			{Name: "-a"},
			{Name: "A"},
			{Name: strings.Repeat("a", 64)},
			{Name: "ok", Sequences: "other"},
			{Name: "ok", Description: strings.Repeat("ü", 1001)},
		} {
			var fields event.FieldErrors
			if _, err := b.log.CreateFeed(t.Context(), spec); !errors.As(err, &fields) {
				t.Errorf("%+.80v: got %v, want field errors", spec, err)
			}
		}
	})
	t.Run("lists page by name in byte order", func(t *testing.T) {
		var names []string
		after := ""
		for {
			feeds, err := b.log.Feeds(t.Context(), after, 2)
			must(t, err)
			if len(feeds) == 0 {
				break
			}
			for _, f := range feeds {
				names = append(names, f.Name)
			}
			after = feeds[len(feeds)-1].Name
		}
		if diff := cmp.Diff([]string{"_system", "a", "b-feed", "b0", "default", "z"}, names); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
	})
	t.Run("an update is refused at another version", func(t *testing.T) {
		text, version := "words", int64(1)
		updated, err := b.log.UpdateFeed(t.Context(), "a", eventlog.FeedPatch{Description: &text, IfVersion: &version})
		must(t, err)
		if updated.Description != text || updated.Version != 2 {
			t.Errorf("updated to %+v", updated)
		}
		if _, err := b.log.UpdateFeed(t.Context(), "a", eventlog.FeedPatch{IfVersion: &version}); !errors.Is(err, eventlog.ErrVersionMismatch) {
			t.Errorf("got %v, want ErrVersionMismatch", err)
		}
		if _, err := b.log.UpdateFeed(t.Context(), "none", eventlog.FeedPatch{}); !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
}

func TestDeleteFeed(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	for _, name := range []string{eventlog.DefaultFeed, eventlog.SystemFeed} {
		if err := b.log.DeleteFeed(t.Context(), name); !errors.Is(err, eventlog.ErrProtectedFeed) {
			t.Errorf("%s: got %v, want ErrProtectedFeed", name, err)
		}
	}
	if err := b.log.DeleteFeed(t.Context(), "none"); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("unknown feed: got %v, want ErrNotFound", err)
	}

	old := b.newFeed("tenant", "")
	b.append(old, keyed("k", "1"), record("2"), record("3"))
	// The clock is set back afterwards: the name's times still go on.
	b.exec(`UPDATE events SET recorded_at = recorded_at + interval '1 day' WHERE feed_id = $1`, old.ID)
	before := b.readAll(old)
	must(t, b.log.DeleteFeed(t.Context(), "tenant"))

	t.Run("it is gone at once", func(t *testing.T) {
		_, feedErr := b.log.Feed(t.Context(), "tenant")
		_, readErr := b.log.Read(t.Context(), old.ID, 0, 10)
		_, oneErr := b.log.ReadOne(t.Context(), old.ID, 1)
		_, _, matchErr := b.log.FirstMatch(t.Context(), old.ID, 0, 0, event.Filter{})
		_, headErr := b.log.Head(t.Context(), old.ID)
		_, appendErr := b.log.Append(t.Context(), old, records(1))
		for i, err := range []error{feedErr, readErr, oneErr, matchErr, headErr, appendErr, b.log.DeleteFeed(t.Context(), "tenant")} {
			if !errors.Is(err, eventlog.ErrNotFound) {
				t.Errorf("%d: got %v, want ErrNotFound", i, err)
			}
		}
	})

	again := b.newFeed("tenant", eventlog.SequencesSupplied)
	t.Run("made again, it goes on above the old head", func(t *testing.T) {
		if again.ID != old.ID || again.Epoch != 2 || again.Head != 3 || again.FloorSequence != 3 || again.Version <= old.Version {
			t.Errorf("made again as %+v after %+v", again, old)
		}
		if _, err := b.log.Append(t.Context(), old, records(1)); !errors.Is(err, eventlog.ErrFeedChanged) {
			t.Errorf("append to the feed as it was: got %v, want ErrFeedChanged", err)
		}
		var below *eventlog.BelowFloorError
		if _, err := b.log.Read(t.Context(), again.ID, 0, 10); !errors.As(err, &below) || below.FirstSequence != 4 {
			t.Errorf("read from the old start: got %v, want that 4 is first", err)
		}
	})
	t.Run("what the old one held counts no more", func(t *testing.T) {
		repeat := numbered(1, "1")
		runPublishCases(t, b, again, []publishCase{
			{name: "old number", events: []event.Event{repeat}, conflict: eventlog.ConflictError{Kind: eventlog.ConflictSequence, Head: 3}},
			{name: "old key", events: []event.Event{{ResourceName: "N", ResourceRecordKey: "r", Sequence: 10, IdempotencyKey: "k"}}, want: []int64{10}, accepted: 1},
		})
		if got := b.readAll(again); got[0].RecordedAt.Before(before[2].RecordedAt) {
			t.Errorf("recorded at %s, but the old feed was at %s", got[0].RecordedAt, before[2].RecordedAt)
		}
	})
	t.Run("its events are removed in chunks, those of the new one stay", func(t *testing.T) {
		var removed []int
		for {
			n, err := b.log.ReapDeleted(t.Context(), 2)
			must(t, err)
			removed = append(removed, n)
			if n < 2 {
				break
			}
		}
		if diff := cmp.Diff([]int{2, 1}, removed); diff != "" {
			t.Errorf("removed (-want +got):\n%s", diff)
		}
		if got := b.readAll(again); len(got) != 1 || got[0].Sequence != 10 {
			t.Errorf("the new feed has %+v", got)
		}
		if n, err := b.log.ReapDeleted(t.Context(), 2); n != 0 || err != nil {
			t.Errorf("once more removed %d, %v", n, err)
		}
	})
}

func TestDeleteFeedInUse(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	feed := b.newFeed("tenant", "")
	const subscribe = `INSERT INTO subscribers (id, feed_id, config, secrets) VALUES ('s', $1, '{}', '')`

	// A subscriber that is being made: deleting waits for it.
	conn := b.connect()
	must(t, errors.Join(exec(conn, `BEGIN`), exec(conn, subscribe, feed.ID)))
	deleted := b.deleting("tenant")
	b.awaitLockWaiters(1)
	must(t, exec(conn, `COMMIT`))
	if err := <-deleted; !errors.Is(err, eventlog.ErrFeedInUse) {
		t.Errorf("got %v, want ErrFeedInUse", err)
	}
	b.append(feed, records(1)...)
}

// deleting starts a deletion and returns where its result comes.
func (b *bundle) deleting(name string) <-chan error {
	deleted := make(chan error, 1)
	go func() { deleted <- b.log.DeleteFeed(b.t.Context(), name) }()
	return deleted
}

// TestDeleteFeedBesideAppends deletes a feed while events are being stored in
// it: what an earlier append commits is deleted too, a later one is refused.
func TestDeleteFeedBesideAppends(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	feed := b.newFeed("tenant", "")
	inTenant := *b
	inTenant.feed = feed
	commit := ourLog{&inTenant}.publishLate(t, "earlier")
	deleted := b.deleting("tenant")
	b.awaitLockWaiters(1)
	later := b.appending(t.Context(), feed, record("later"))
	b.awaitLockWaiters(2)
	commit()
	must(t, <-deleted)
	if _, err := later(); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("an append after the deletion: %v, want ErrNotFound", err)
	}
	again := b.newFeed("tenant", "")
	if again.FloorSequence != 1 || again.Head != 1 {
		t.Errorf("made again with the floor at %d and the head at %d, want both at the last event of the old feed", again.FloorSequence, again.Head)
	}
	_, err := b.log.ReapDeleted(t.Context(), 10)
	must(t, err)
	if first := b.append(again, record("new")).First; first != 2 {
		t.Errorf("the first event of the new feed has number %d, want one above the old feed's", first)
	}
}

func TestReapDeletedGoesOnToTheNextFeed(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	for i := range 3 {
		name := fmt.Sprint("f", i)
		b.append(b.newFeed(name, ""), records(2)...)
		must(t, b.log.DeleteFeed(t.Context(), name))
	}
	b.append(b.feed, records(2)...)
	if n, err := b.log.ReapDeleted(t.Context(), 100); n != 6 || err != nil {
		t.Errorf("removed %d, %v; want the 6 of the deleted feeds", n, err)
	}
	if n := len(b.readAll(b.feed)); n != 2 {
		t.Errorf("%d events of a feed that lives are left", n)
	}
}

func TestReapKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.append(b.feed, keyed("a", "1"), keyed("b", "2"), keyed("c", "3"), keyed("d", "4"))
	b.exec(`UPDATE idempotency_keys SET expires_at = clock_timestamp() WHERE key <> 'd'`)
	for _, want := range []int{2, 1, 0} {
		if n, err := b.log.ReapKeys(t.Context(), 2); n != want || err != nil {
			t.Errorf("removed %d, %v; want %d", n, err, want)
		}
	}
	if result := b.append(b.feed, keyed("d", "4")); result.Duplicates != 1 {
		t.Errorf("the key that still counts was removed too")
	}
}
