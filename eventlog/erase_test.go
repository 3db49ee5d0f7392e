package eventlog_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

func carrying(key, data string) event.Event {
	return event.Event{
		ResourceName: "Member", ResourceRecordKey: key, ResourceRecordURL: "https://example.com/1", EventType: "created",
		FeedTypes: []string{"IDX"}, Attributes: map[string]string{"name": data}, Related: []string{"https://example.com/" + data},
		Bulk: true, OccurredAt: "2026-01-02T03:04:05Z", Data: json.RawMessage(`"` + data + `"`), IdempotencyKey: data,
	}
}

func TestErase(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	const key = "a/b+c 'é"
	b.append(b.feed, carrying(key, "secret 1"), carrying("other", "kept"), carrying(key, "secret 2"), record(key))
	other := carrying(key, "of another name")
	other.ResourceName = "Office"
	b.append(b.feed, other)
	elsewhere := b.newFeed("elsewhere", "")
	b.append(elsewhere, carrying(key, "of another feed"))
	before := b.readAll(b.feed)

	record := event.Key{ResourceName: "Member", ResourceRecordKey: key}
	for round, want := range []int64{2, 0} {
		if n, err := b.log.Erase(t.Context(), b.feed.ID, record); n != want || err != nil {
			t.Errorf("round %d erased %d, %v; want %d", round, n, err, want)
		}
	}
	after := b.readAll(b.feed)
	for i := range before {
		want := before[i]
		if i == 0 || i == 2 {
			want.Data, want.Attributes, want.Related, want.ErasedAt = nil, nil, nil, after[i].ErasedAt
			if after[i].ErasedAt.IsZero() {
				t.Errorf("event %d does not say that it was erased", i)
			}
		}
		if diff := cmp.Diff(want, after[i]); diff != "" {
			t.Errorf("event %d (-want +got):\n%s", i, diff)
		}
	}
	if got := b.readAll(elsewhere); string(got[0].Data) != `"of another feed"` {
		t.Errorf("another feed: %+v", got)
	}
	// A repeat of the publisher's is still one: it brings nothing back.
	if r := b.append(b.feed, carrying(key, "secret 1")); r.Duplicates != 1 || r.First != 1 {
		t.Errorf("the publisher's repeat: %+v", r)
	}
	if n, err := b.log.Erase(t.Context(), b.feed.ID, event.Key{ResourceName: "Member", ResourceRecordKey: "none"}); n != 0 || err != nil {
		t.Errorf("a record without events: %d, %v", n, err)
	}
}

// TestEraseMany: more events than one statement takes.
func TestEraseMany(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, data)
		SELECT $1, i, clock_timestamp(), 'Member', 'k' || i % 2, '1' FROM generate_series(1, 5000) i`, b.feed.ID)
	n, err := b.log.Erase(t.Context(), b.feed.ID, event.Key{ResourceName: "Member", ResourceRecordKey: "k1"})
	if n != 2500 || err != nil {
		t.Errorf("erased %d, %v", n, err)
	}
	var wrong int
	must(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE (data IS NULL) <> (resource_key = 'k1')`).Scan(&wrong))
	if wrong != 0 {
		t.Errorf("%d events are not as they should be", wrong)
	}
}

// TestEraseReachesFollowers: what followers of any process have read before is
// known to be out of date, and what they read next is not.
func TestEraseReachesFollowers(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: hourly, RingEvents: 1}) // reads pages
	elsewhere := setupAt(t, b.url, eventlog.Config{PollInterval: hourly})
	begin := func(log *eventlog.Log) *eventlog.Follower {
		f := log.Follow(b.feed.ID, 0, event.Filter{})
		t.Cleanup(f.Close)
		return f
	}
	ringed := []*eventlog.Follower{begin(b.log), begin(elsewhere.log)}
	for _, log := range []*eventlog.Log{b.log, elsewhere.log} {
		testkit.Eventually(t, soon, func() bool { return log.Begun(b.feed.ID) }, "the feed is followed")
	}
	b.append(b.feed, carrying("k", "secret 1"), carrying("k", "secret 2"), carrying("k", "secret 3"))
	for i, f := range ringed {
		must(t, f.Wait(t.Context()))
		events, _, err := f.Next(t.Context(), 1, 1<<20) // from memory
		if err != nil || len(events) != 1 || events[0].Data == nil || f.Erased() {
			t.Fatalf("follower %d: %d events, %v, erased %t", i, len(events), err, f.Erased())
		}
	}
	paged := begin(b.log)
	if events, _, err := paged.Next(t.Context(), 1, 1<<20); err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	_, err := b.log.Erase(t.Context(), b.feed.ID, event.Key{ResourceName: "Member", ResourceRecordKey: "k"})
	must(t, err)
	for i, f := range append(ringed, paged) {
		testkit.Eventually(t, soon, f.Erased, fmt.Sprint("follower ", i, " hears of it"))
		for {
			events, _, err := f.Next(t.Context(), 10, 1<<20)
			must(t, err)
			if len(events) == 0 {
				break
			}
			for _, e := range events {
				if e.Data != nil || e.ErasedAt.IsZero() {
					t.Errorf("follower %d still gets %s", i, e.Data)
				}
			}
		}
	}
	if f := begin(b.log); f.Erased() {
		t.Error("a follower that read nothing holds nothing that was erased")
	}
}

// TestRecordSequencesUseTheIndex: however small the feed looks.
func TestRecordSequencesUseTheIndex(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.append(b.feed, record("k"))
	b.exec(`ANALYZE events`)
	rows, err := b.pool.Query(t.Context(), `EXPLAIN SELECT * FROM record_sequences($1, 'Property', 'k')`, b.feed.ID)
	must(t, err)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	if !strings.Contains(strings.Join(plan, "\n"), "events_record") {
		t.Errorf("the plan is:\n%s", strings.Join(plan, "\n"))
	}
}
