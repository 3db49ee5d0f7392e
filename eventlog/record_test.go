package eventlog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/eventlog"
)

// recordPages reads all pages of a record.
func (b *bundle) recordPages(feed eventlog.Feed, key event.Key, limit int) (events []*event.Event, pages int) {
	b.t.Helper()
	for before := int64(0); ; {
		page, err := b.log.RecordEvents(b.t.Context(), feed.ID, key, before, limit)
		must(b.t, err)
		if len(page.Events) > limit {
			b.t.Errorf("%d events at once", len(page.Events))
		}
		events, pages = append(events, page.Events...), pages+1
		if before = page.Before; before == 0 {
			return events, pages
		}
	}
}

func numbers(events []*event.Event) []int64 {
	list := []int64{}
	for _, e := range events {
		list = append(list, e.Sequence)
	}
	return list
}

func TestRecordEvents(t *testing.T) {
	t.Parallel()
	key := event.Key{ResourceName: "Member", ResourceRecordKey: "a/b+c 'é"}
	t.Run("newest first, of this record alone, paged", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		other := carrying(key.ResourceRecordKey, "of another name")
		other.ResourceName = "Office"
		for i := range 7 {
			b.append(b.feed, carrying(key.ResourceRecordKey, fmt.Sprint(i)), carrying("other", fmt.Sprint("other ", i)))
		}
		b.append(b.feed, other)
		b.append(b.newFeed("elsewhere", ""), carrying(key.ResourceRecordKey, "of another feed"))
		want := []int64{13, 11, 9, 7, 5, 3, 1}
		for limit, pages := range map[int]int{1: 8, 3: 3, 7: 2, 100: 1} {
			got, n := b.recordPages(b.feed, key, limit)
			if !slices.Equal(numbers(got), want) || n != pages {
				t.Errorf("by %d: %v on %d pages", limit, numbers(got), n)
			}
			one, err := b.log.ReadOne(t.Context(), b.feed.ID, 13)
			must(t, err)
			if diff := cmp.Diff(&one, got[0]); diff != "" {
				t.Error(diff)
			}
		}
		b.exec(`UPDATE feeds SET floor_sequence = 5 WHERE id = $1`, b.feed.ID)
		if got, _ := b.recordPages(b.feed, key, 3); !slices.Equal(numbers(got), want[:4]) {
			t.Errorf("above the floor: %v", numbers(got))
		}
		if got, _ := b.recordPages(b.feed, event.Key{ResourceName: "Member", ResourceRecordKey: "none"}, 3); len(got) != 0 {
			t.Errorf("of no record: %v", numbers(got))
		}
	})
	t.Run("bounded in bytes", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{PageBytes: 5_000})
		for i := range 10 {
			b.append(b.feed, carrying(key.ResourceRecordKey, strings.Repeat(fmt.Sprint(i), 500)))
		}
		got, pages := b.recordPages(b.feed, key, 100)
		if !slices.Equal(numbers(got), []int64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}) || pages < 3 {
			t.Errorf("%v on %d pages", numbers(got), pages)
		}
	})
	t.Run("of a frequent record", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		// Frequent once, and not since.
		b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
			SELECT $1, n, clock_timestamp(), 'Member', CASE WHEN n <= 6000 OR n = 120000 THEN $2 ELSE n::text END FROM generate_series(1, 120000) n`,
			b.feed.ID, key.ResourceRecordKey)
		got, pages := b.recordPages(b.feed, key, 1000)
		if len(got) != 6001 || got[0].Sequence != 120000 || got[1].Sequence != 6000 || got[6000].Sequence != 1 || pages != 9 {
			t.Errorf("%d events on %d pages", len(got), pages)
		}
	})
}
