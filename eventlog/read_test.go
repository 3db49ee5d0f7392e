package eventlog_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"postroad/event"
	"postroad/eventlog"
)

func TestRead(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PageBytes: 10_000})
	feed := b.newFeed("tenant", "")
	if page, err := b.log.Read(t.Context(), feed.ID, 0, 10); err != nil || len(page.Events) != 0 || page.Next != 0 || page.Head != 0 || page.FirstSequence != 1 {
		t.Errorf("an empty feed reads as %+v, %v", page, err)
	}
	body := func(n int) event.Event {
		e := record("r")
		e.Data = json.RawMessage(`"` + strings.Repeat("x", n) + `"`)
		return e
	}
	b.append(feed, body(10), body(10), body(10), body(4000), body(4000), body(4000), body(50_000), body(50_000), body(10))
	for _, c := range []struct {
		name        string
		after       int64
		limit       int
		first, next int64
	}{
		{"bounded in rows", 0, 2, 1, 2},
		{"bounded in bytes", 3, 100, 4, 6},
		{"one event always fits", 6, 100, 7, 7},
		{"the end", 8, 100, 9, 9},
		{"beyond the end", 20, 100, 0, 20},
	} {
		page, err := b.log.Read(t.Context(), feed.ID, c.after, c.limit)
		must(t, err)
		if page.Next != c.next || page.Head != 9 || page.FirstSequence != 1 {
			t.Errorf("%s: got next %d, head %d, first %d", c.name, page.Next, page.Head, page.FirstSequence)
		}
		if c.first == 0 != (len(page.Events) == 0) || len(page.Events) > 0 && page.Events[0].Sequence != c.first {
			t.Errorf("%s: got %d events", c.name, len(page.Events))
		}
	}
	t.Run("one", func(t *testing.T) {
		one, err := b.log.ReadOne(t.Context(), feed.ID, 7)
		if err != nil || one.Sequence != 7 || len(one.Data) != 50_002 {
			t.Errorf("got event %d, %v", one.Sequence, err)
		}
		for _, sequence := range []int64{10, 1 << 40} {
			if _, err := b.log.ReadOne(t.Context(), feed.ID, sequence); !errors.Is(err, eventlog.ErrNotFound) {
				t.Errorf("event %d: got %v, want ErrNotFound", sequence, err)
			}
		}
	})
	t.Run("the floor hides what is still there", func(t *testing.T) {
		b.exec(`UPDATE feeds SET floor_sequence = 4 WHERE id = $1`, feed.ID)
		follower := b.log.Follow(feed.ID, 3, event.Filter{})
		defer follower.Close()
		_, readErr := b.log.Read(t.Context(), feed.ID, 3, 10)
		_, oneErr := b.log.ReadOne(t.Context(), feed.ID, 4)
		_, _, matchErr := b.log.FirstMatch(t.Context(), feed.ID, 3, 0, event.Filter{})
		_, _, nextErr := follower.Next(t.Context(), 10, 1000)
		for i, err := range []error{readErr, oneErr, matchErr, nextErr} {
			var below *eventlog.BelowFloorError
			if !errors.As(err, &below) || below.FirstSequence != 5 {
				t.Errorf("%d: got %v, want that 5 is first", i, err)
			}
		}
		if page, err := b.log.Read(t.Context(), feed.ID, 4, 1); err != nil || page.Events[0].Sequence != 5 {
			t.Errorf("read above the floor: %+v, %v", page, err)
		}
	})
}

func TestFirstMatch(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{ScanRows: 3})
	var events []event.Event
	for i := range 20 {
		e := record("r")
		if i == 13 {
			e.ResourceName, e.EventType = "Member", "member.created"
		}
		events = append(events, e)
	}
	b.append(b.feed, events...)
	member := event.Filter{ResourceNames: []string{"Member"}}
	for _, c := range []struct {
		name                   string
		after, upTo            int64
		filter                 event.Filter
		wantMatch, wantScanned int64
	}{
		{"found pages on", 0, 0, member, 14, 14},
		{"by a prefix of the type", 2, 0, event.Filter{EventTypes: []string{"x", "member.*"}}, 14, 14},
		{"none up to the bound", 0, 13, member, 0, 13},
		{"none after it", 14, 0, member, 0, 20},
		{"names are case-sensitive", 0, 0, event.Filter{ResourceNames: []string{"member"}}, 0, 20},
		{"a wildcard in SQL is a letter here", 0, 0, event.Filter{ResourceNames: []string{"M%", "Membe_*"}}, 0, 20},
		{"every event", 7, 0, event.Filter{}, 8, 8},
		{"events without a type match *", 0, 0, event.Filter{EventTypes: []string{"*"}}, 1, 1},
		{"at the head", 20, 0, member, 0, 20},
		{"beyond the head", 30, 0, member, 0, 30},
		{"bound beyond the head", 14, 100, member, 0, 20},
	} {
		match, scanned, err := b.log.FirstMatch(t.Context(), b.feed.ID, c.after, c.upTo, c.filter)
		if err != nil || match != c.wantMatch || scanned != c.wantScanned {
			t.Errorf("%s: got %d, scanned %d, %v; want %d, %d", c.name, match, scanned, err, c.wantMatch, c.wantScanned)
		}
		match, scanned = 0, c.after
		for from := int64(-1); err == nil && match == 0 && scanned > from; {
			from = scanned
			match, scanned, err = b.log.FirstMatchPage(t.Context(), b.feed.ID, from, c.upTo, c.filter)
			if scanned > from+3 {
				t.Errorf("%s: one query looked at (%d, %d], more than 3 events", c.name, from, scanned)
			}
		}
		if err != nil || match != c.wantMatch || scanned != c.wantScanned {
			t.Errorf("%s: got %d page by page, scanned %d, %v; want %d, %d", c.name, match, scanned, err, c.wantMatch, c.wantScanned)
		}
	}
}
