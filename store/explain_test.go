package store_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/event"
	"postroad/store"
)

// explainBundle has one subscriber, acme, on the default feed with the events 1
// to 20 of the records 1 to 20, its position at 10.
type explainBundle struct {
	*bundle
	feed int64
	now  time.Time
}

func setupExplain(t *testing.T) *explainBundle {
	b := &explainBundle{bundle: setup(t)}
	b.create("acme", event.Start{Where: "beginning"})
	for n := range int64(20) {
		b.publish(time.Hour, n+1)
	}
	b.exec(`UPDATE runs SET cursor = 10, start_sequence = 0`)
	b.feed, b.now = value[int64](b.bundle, `SELECT id FROM feeds WHERE name = 'default'`), value[time.Time](b.bundle, `SELECT clock_timestamp()`)
	return b
}

// sent stores attempts one after the other, each a second after the one before.
func (b *explainBundle) sent(attempts ...store.Attempt) {
	b.t.Helper()
	for i := range attempts {
		a := &attempts[i]
		if a.StartedAt.IsZero() {
			a.StartedAt = b.now.Add(time.Duration(i) * time.Second)
		}
		if a.Subscriber == "" {
			a.Subscriber = "acme"
		}
		if a.LastSequence == 0 {
			a.LastSequence = a.FirstSequence
		}
		if a.EventCount == 0 {
			a.EventCount = 1
		}
		a.Attempt, a.Class = max(a.Attempt, 1), "success"
		if a.Status == nil || *a.Status > 299 {
			a.Class = "record"
		}
		check(b.t, b.InsertAttempts(b.t.Context(), []store.Attempt{*a}))
	}
}

// explain says what became of an event for acme.
func (b *explainBundle) explain(sequence int64) store.Delivery {
	b.t.Helper()
	_, list, err := b.ExplainEvent(b.t.Context(), b.feed, sequence, "acme", "", 1)
	check(b.t, err)
	own, err := b.ExplainSubscriber(b.t.Context(), "acme", []int64{sequence})
	check(b.t, err)
	if len(list) != 1 || len(own) != 1 || list[0].State != own[0].State || list[0].Reason != own[0].Reason {
		b.t.Fatalf("of the event %+v, of the subscriber %+v", list, own)
	}
	return list[0]
}

func (b *explainBundle) hold(key string, attempts int, sequences ...int64) {
	b.t.Helper()
	b.exec(`INSERT INTO held_keys (subscriber, resource_name, resource_key, attempts, not_before, last_status, last_error)
		VALUES ('acme', 'Property', $1, $2, clock_timestamp() + interval '1 hour', 422, 'HTTP 422: no such agent')`, key, attempts)
	b.exec(`INSERT INTO held_events (subscriber, sequence, resource_name, resource_key) SELECT 'acme', n, 'Property', $1 FROM unnest($2::bigint[]) n`, key, sequences)
}

func (b *explainBundle) die(sequence int64, reason string, replay any) {
	b.t.Helper()
	b.exec(`INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, attempts, last_status, last_error, replay)
		VALUES ('acme', $1, 'Property', $1::bigint::text, $2, 5, 500, 'HTTP 500', $3)`, sequence, reason, replay)
}

func (b *explainBundle) seek(version, from, to int64) {
	b.t.Helper()
	b.exec(`INSERT INTO controls (subscriber, version, request_id, kind, args, source, applied_at)
		VALUES ('acme', $1, 'seek/' || $1::bigint, 'seek', jsonb_build_object('from', $2::bigint, 'to', $3::bigint), 'api', clock_timestamp())`, version, from, to)
}

// filter changes the configuration as the API does.
func (b *explainBundle) filter(names, types []string) {
	b.t.Helper()
	record, err := b.Get(b.t.Context(), "acme")
	check(b.t, err)
	record.Subscriber.Filter = event.Filter{ResourceNames: names, EventTypes: types}
	_, _, err = b.Replace(b.t.Context(), record.Subscriber, event.Secrets{}, store.Change{Source: "api"})
	check(b.t, err)
}

func TestExplain(t *testing.T) {
	t.Parallel()
	ok := status(200)
	for reason, row := range map[string]struct {
		prepare  func(b *explainBundle)
		sequence int64
		state    string
		says     string // a part of the sentence
		extra    func(d store.Delivery) bool
	}{
		"accepted at the second attempt": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: status(500)}, store.Attempt{FirstSequence: 5, Attempt: 2, Status: ok}, store.Attempt{FirstSequence: 6, Status: ok})
		}, 5, store.DeliveryDelivered, "HTTP 200, attempt 2", func(d store.Delivery) bool {
			return d.Attempts == 2 && d.Delivered.Times == 1 && d.Delivered.Attempt == 2
		}},
		"accepted again in a replay": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: status(204)}, store.Attempt{FirstSequence: 5, Status: ok, Replay: 3})
		}, 5, store.DeliveryDelivered, "HTTP 204, attempt 1; accepted 2 times", func(d store.Delivery) bool {
			return d.Delivered.LastAt.Sub(d.Delivered.At) == time.Second && d.LastAnswer.Replay == 3 && d.Delivered.Replay == 0
		}},
		"in a batch": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 1, LastSequence: 8, EventCount: 8, Status: ok})
		}, 5, store.DeliveryDelivered, "HTTP 200", nil},
		"in a wide batch, after many that are not": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 1, LastSequence: 20, EventCount: 20, Status: ok})
			for n := range int64(12) {
				b.sent(store.Attempt{FirstSequence: n + 2, Status: status(500)})
			}
		}, 19, store.DeliveryDelivered, "HTTP 200", func(d store.Delivery) bool { return d.Attempts == 1 }},
		"in a batch across a boundary of the index": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 15, LastSequence: 17, EventCount: 3, Status: ok})
		}, 16, store.DeliveryDelivered, "HTTP 200", nil},
		"in a batch of all numbers": {func(b *explainBundle) {
			const last = math.MaxInt64
			b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key) VALUES ($1, $2, clock_timestamp(), 'Property', 'x')`, b.feed, int64(last))
			b.sent(store.Attempt{FirstSequence: 3, LastSequence: last, EventCount: 3, Sequences: []int64{3, 5, last}, Status: ok})
		}, 5, store.DeliveryDelivered, "HTTP 200", nil},
		"in the gap of a request": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 4, LastSequence: 6, EventCount: 2, Sequences: []int64{4, 6}, Status: ok})
		}, 5, store.DeliverySettled, "not yet or no longer", func(d store.Delivery) bool { return d.Attempts == 0 }},
		"named by a request with gaps": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 3, LastSequence: 7, EventCount: 3, Sequences: []int64{3, 5, 7}, Status: ok})
		}, 5, store.DeliveryDelivered, "", nil},
		"between the events that matched then": {func(b *explainBundle) {
			b.exec(`UPDATE events SET resource_name = 'Media' WHERE sequence = 5`)
			b.filter([]string{"Property"}, nil)
			b.sent(store.Attempt{FirstSequence: 4, LastSequence: 6, EventCount: 2, Status: ok, StartedAt: time.Now()})
			b.filter(nil, nil)
		}, 5, store.DeliverySettled, "not yet or no longer", nil},
		"among those that matched then": {func(b *explainBundle) {
			b.exec(`UPDATE events SET resource_name = 'Media' WHERE sequence = 6`)
			b.filter([]string{"Property"}, nil)
			b.sent(store.Attempt{FirstSequence: 4, LastSequence: 8, EventCount: 4, Status: ok, StartedAt: time.Now()})
			b.filter(nil, nil)
		}, 5, store.DeliveryDelivered, "", nil},
		"a test request is none": {func(b *explainBundle) {
			check(b.t, b.InsertAttempts(b.t.Context(), []store.Attempt{{Subscriber: "acme", StartedAt: b.now, LastSequence: 20, Class: "success", Status: ok}}))
		}, 5, store.DeliverySettled, "not yet or no longer", nil},
		"to whoever had the id before": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: ok, StartedAt: b.now.Add(-time.Hour)})
		}, 5, store.DeliverySettled, "not yet or no longer", nil},
		"accepted in part": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, LastSequence: 6, EventCount: 2, Status: status(429)})
		}, 5, store.DeliverySettled, "Postroad-Accepted-Through", nil},
		"not sent yet": {func(*explainBundle) {}, 15, store.DeliveryWaiting, "not sent yet", func(d store.Delivery) bool {
			return d.SubscriberState == store.StateActive
		}},
		"refused so far": {func(b *explainBundle) {
			b.exec(`UPDATE runs SET paused = true`)
			b.sent(store.Attempt{FirstSequence: 11, Status: status(500)}, store.Attempt{FirstSequence: 11, Attempt: 2, Status: status(503)})
		}, 11, store.DeliveryWaiting, "in 2 attempts so far, last HTTP 503", func(d store.Delivery) bool {
			return d.SubscriberState == store.StatePaused && *d.LastAnswer.Status == 503
		}},
		"no answer so far": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 11, Error: "connection refused"})
		}, 11, store.DeliveryWaiting, "last connection refused", nil},
		"settled above the position": {func(b *explainBundle) {
			b.exec(`UPDATE runs SET settled = '{12,13,15,17}', scanned = 17`)
		}, 16, store.DeliverySettled, "not yet or no longer", nil},
		"between what is settled above the position": {func(b *explainBundle) {
			b.exec(`UPDATE runs SET settled = '{12,13,15,17}', scanned = 17`)
		}, 14, store.DeliveryWaiting, "", nil},
		"another resource": {func(b *explainBundle) { b.filter([]string{"Media"}, nil) }, 5, store.DeliveryFiltered, "resourceNames", func(d store.Delivery) bool {
			return d.Event == nil && d.FilteredBy == "resourceNames"
		}},
		"another type, not sent yet": {func(b *explainBundle) { b.filter(nil, []string{"Sold"}) }, 15, store.DeliveryFiltered, "eventTypes", nil},
		"sent before the filter": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: ok})
			b.filter([]string{"Media"}, nil)
		}, 5, store.DeliveryDelivered, "", func(d store.Delivery) bool { return d.Event == nil }},
		"the first of a held key": {func(b *explainBundle) { b.hold("5", 6, 5, 9) }, 5, store.DeliveryHeld, "the first of its key; 6 attempts, last HTTP 422", func(d store.Delivery) bool {
			return d.Held.First && d.Held.FirstSequence == 5 && d.Held.Due != nil && d.Held.LastError != ""
		}},
		"behind a held key": {func(b *explainBundle) { b.hold("5", 6, 5, 9) }, 9, store.DeliveryHeld, "behind event 5", func(d store.Delivery) bool {
			return !d.Held.First && d.Held.FirstSequence == 5
		}},
		"delivered, and held in a replay": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: ok})
			b.hold("5", 6, 5)
		}, 5, store.DeliveryDelivered, "", func(d store.Delivery) bool { return d.Held != nil }},
		"given up": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: status(500)})
			b.die(5, store.DeadExhausted, nil)
		}, 5, store.DeliveryDead, "given up (exhausted)", func(d store.Delivery) bool { return d.DeadLetter.Attempts == 5 && d.DeadLetter.LastStatus == 500 }},
		"given up, and in a replay of what was missed": {func(b *explainBundle) { b.die(5, store.DeadSkipped, 4) }, 5, store.DeliveryDead, "replay 4 will send it", func(d store.Delivery) bool { return d.Replay == 4 }},
		"held and below the floor": {func(b *explainBundle) {
			b.hold("5", 6, 5)
			b.exec(`UPDATE feeds SET floor_sequence = 7`)
		}, 5, store.DeliveryHeld, "", nil},
		"removed": {func(b *explainBundle) { b.exec(`UPDATE feeds SET floor_sequence = 7`) }, 5, store.DeliveryRemoved, "keeps it no longer", nil},
		"compacted in the log": {func(b *explainBundle) {
			b.exec(`DELETE FROM events WHERE sequence = 5`)
			b.exec(`UPDATE feeds SET compacted_through = 9`)
		}, 5, store.DeliveryRemoved, "compaction", nil},
		"delivered, then removed": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: ok})
			b.exec(`UPDATE feeds SET floor_sequence = 7`)
		}, 5, store.DeliveryDelivered, "", nil},
		"below the start":                      {func(b *explainBundle) { b.exec(`UPDATE runs SET start_sequence = 8`) }, 8, store.DeliveryBeforeStart, "began above 8", nil},
		"above the start":                      {func(b *explainBundle) { b.exec(`UPDATE runs SET start_sequence = 8`) }, 9, store.DeliverySettled, "", nil},
		"the start of an older row":            {func(b *explainBundle) { b.exec(`UPDATE runs SET start_sequence = NULL`) }, 5, store.DeliverySettled, "", nil},
		"below the start, after a seek back":   {func(b *explainBundle) { b.exec(`UPDATE runs SET start_sequence = 8`); b.seek(1, 9, 2) }, 5, store.DeliverySettled, "", nil},
		"below the start, before a seek ahead": {func(b *explainBundle) { b.exec(`UPDATE runs SET start_sequence = 4`); b.seek(1, 4, 9) }, 4, store.DeliveryBeforeStart, "", nil},
		"passed by a seek": {func(b *explainBundle) { b.seek(3, 4, 9) }, 5, store.DeliverySeek, "from 4 to 9", func(d store.Delivery) bool {
			return d.Seek.Version == 3 && d.Seek.From == 4 && d.Seek.To == 9 && !d.Seek.At.IsZero()
		}},
		"the last one a seek passed":     {func(b *explainBundle) { b.seek(3, 4, 9) }, 9, store.DeliverySeek, "", nil},
		"where a seek began":             {func(b *explainBundle) { b.seek(3, 4, 9) }, 4, store.DeliverySettled, "", nil},
		"a seek that was taken back":     {func(b *explainBundle) { b.seek(3, 4, 9); b.seek(4, 9, 2) }, 5, store.DeliverySettled, "", nil},
		"a seek back, and passed again":  {func(b *explainBundle) { b.seek(3, 9, 2); b.seek(4, 2, 9) }, 5, store.DeliverySeek, "", func(d store.Delivery) bool { return d.Seek.Version == 4 }},
		"refused, then passed by a seek": {func(b *explainBundle) { b.sent(store.Attempt{FirstSequence: 5, Status: status(500)}); b.seek(3, 4, 9) }, 5, store.DeliverySeek, "", nil},
		"delivered, then passed by seeks": {func(b *explainBundle) {
			b.sent(store.Attempt{FirstSequence: 5, Status: ok})
			b.seek(2, 9, 1)
			b.seek(3, 1, 9)
		}, 5, store.DeliveryDelivered, "", nil},
		"in an open replay": {func(b *explainBundle) {
			b.exec(`INSERT INTO replays (subscriber, id, selection, after_sequence, through_sequence, total, source, cursor, settled)
				VALUES ('acme', 1, '{"resourceNames":["Property"]}', 2, 8, 6, 'api', 3, '{6,6}')`)
		}, 5, store.DeliverySettled, "", func(d store.Delivery) bool { return d.Replay == 1 }},
		"dealt with by an open replay": {func(b *explainBundle) {
			b.exec(`INSERT INTO replays (subscriber, id, selection, after_sequence, through_sequence, total, source, cursor, settled)
				VALUES ('acme', 1, '{"resourceNames":["Property"]}', 2, 8, 6, 'api', 3, '{6,6}')`)
		}, 6, store.DeliverySettled, "", func(d store.Delivery) bool { return d.Replay == 0 }},
	} {
		t.Run(reason, func(t *testing.T) {
			b := setupExplain(t)
			row.prepare(b)
			d := b.explain(row.sequence)
			if d.State != row.state || !strings.Contains(d.Reason, row.says) || row.extra != nil && !row.extra(d) {
				t.Errorf("%s: %s (%+v)", d.State, d.Reason, d)
			}
		})
	}
}

func TestExplainCompaction(t *testing.T) {
	t.Parallel()
	ok := status(200)
	// The record k has the events 2, 4, 6, 8 and 10; those between are of others.
	setup := func(t *testing.T) *explainBundle {
		b := setupExplain(t)
		b.exec(`UPDATE events SET resource_key = 'k' WHERE sequence <= 10 AND sequence % 2 = 0`)
		b.exec(`UPDATE subscribers SET config = config || '{"compact":"catchUp"}'`)
		b.sent(store.Attempt{FirstSequence: 3, Status: ok}, store.Attempt{FirstSequence: 8, Status: ok, Compacted: 2}, store.Attempt{FirstSequence: 10, Status: ok})
		return b
	}
	states := func(t *testing.T, b *explainBundle, sequences ...int64) string {
		t.Helper()
		list, err := b.ExplainSubscriber(t.Context(), "acme", sequences)
		check(t, err)
		var text []string
		for _, d := range list {
			state := fmt.Sprint(d.Sequence, " ", d.State)
			if d.CompactedBy != 0 {
				state += fmt.Sprint(" by ", d.CompactedBy)
			}
			text = append(text, state)
		}
		return strings.Join(text, ", ")
	}
	t.Run("each alone and all together", func(t *testing.T) {
		b := setup(t)
		want := map[int64]string{
			10: "10 delivered", 8: "8 delivered", 6: "6 compacted by 8", 4: "4 compacted by 8",
			2: "2 settled", // two older ones were left out, not three
		}
		for n, state := range want {
			if got := states(t, b, n); got != state {
				t.Errorf("%d alone is %q", n, got)
			}
		}
		all := strings.Join([]string{want[10], want[8], want[6], want[4], want[2]}, ", ")
		if got := states(t, b, 10, 8, 6, 4, 2); got != all {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the filter's events alone count", func(t *testing.T) {
		b := setup(t)
		b.exec(`UPDATE events SET event_type = CASE WHEN sequence = 6 THEN 'Price' ELSE 'New' END`)
		b.filter(nil, []string{"New"})
		if got, want := states(t, b, 10, 8, 6, 4, 2), "10 delivered, 8 delivered, 6 filtered, 4 compacted by 8, 2 compacted by 8"; got != want {
			t.Errorf("got %q", got)
		}
	})
	t.Run("in a batch, of a frequent record", func(t *testing.T) {
		b := setup(t)
		b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
			SELECT $1, n, clock_timestamp(), 'Property', 'k' FROM generate_series(21, 7000) n`, b.feed)
		b.exec(`UPDATE runs SET cursor = 7000`)
		b.sent(store.Attempt{FirstSequence: 11, LastSequence: 150, EventCount: 2, Sequences: []int64{11, 150}, Status: ok, Compacted: 500})
		if got, want := states(t, b, 40), "40 compacted by 150"; got != want {
			t.Errorf("got %q", got)
		}
	})
	t.Run("without compaction", func(t *testing.T) {
		b := setup(t)
		b.exec(`UPDATE subscribers SET config = config - 'compact'`)
		if got := states(t, b, 6); got != "6 settled" {
			t.Errorf("got %q", got)
		}
	})
}

func TestExplainErased(t *testing.T) {
	b := setupExplain(t)
	b.sent(store.Attempt{FirstSequence: 5, Status: status(422), Error: "HTTP 422: Jane Doe"})
	b.hold("5", 1, 5)
	b.exec(`UPDATE held_keys SET last_error = 'Jane Doe'`)
	b.die(6, store.DeadExhausted, nil)
	b.exec(`UPDATE dead_letters SET last_error = 'Jane Doe', last_status = NULL`)
	for _, erased := range []bool{false, true} {
		if erased {
			b.exec(`UPDATE events SET erased_at = clock_timestamp()`)
		}
		text := fmt.Sprintf("%+v %+v %+v", b.explain(5).LastAnswer, b.explain(5).Held, b.explain(6).DeadLetter) + b.explain(6).Reason
		if n := strings.Count(text, "Jane Doe"); erased && n != 0 || !erased && n != 4 {
			t.Errorf("erased %t: %s", erased, text)
		}
		if d := b.explain(5); !d.Held.First || *d.LastAnswer.Status != 422 {
			t.Errorf("%+v", d)
		}
	}
}

func TestExplainEvent(t *testing.T) {
	b := setupExplain(t)
	for _, id := range []string{"zeta", "beta", "gone"} {
		b.create(id, event.Start{Where: "beginning"})
	}
	b.exec(`UPDATE runs SET deleted = true WHERE id = 'gone'`)
	b.exec(`INSERT INTO feeds (name) VALUES ('other')`)
	elsewhere := subscriber("elsewhere")
	elsewhere.Feed = "other"
	_, err := b.Create(t.Context(), elsewhere, event.Secrets{})
	check(t, err)
	b.sent(store.Attempt{FirstSequence: 5, Status: status(200), Subscriber: "beta", StartedAt: time.Now()}, store.Attempt{FirstSequence: 5, Status: status(200), Subscriber: "elsewhere"})

	var ids []string
	for after := ""; ; {
		ev, list, err := b.ExplainEvent(t.Context(), b.feed, 5, "", after, 2)
		check(t, err)
		if ev.Key != (event.Key{ResourceName: "Property", ResourceRecordKey: "5"}) || ev.RecordedAt.IsZero() {
			t.Errorf("the event is %+v", ev)
		}
		if len(list) == 0 {
			break
		}
		for _, d := range list {
			ids = append(ids, d.Subscriber+" "+d.State)
			after = d.Subscriber
		}
	}
	if want := []string{"acme settled", "beta delivered", "zeta waiting"}; !slices.Equal(ids, want) {
		t.Errorf("got %v", ids)
	}
	b.exec(`DELETE FROM events WHERE sequence = 13`)
	b.exec(`UPDATE feeds SET compacted_through = 12 WHERE name = 'default'`)
	for what, c := range map[string]struct {
		feed, sequence int64
		subscriber     string
		want           error
	}{
		"a gap in the log":             {b.feed, 13, "", store.ErrEventNotFound},
		"above the head":               {b.feed, 21, "", store.ErrEventNotFound},
		"of another feed's subscriber": {b.feed, 5, "elsewhere", store.ErrNotFound},
		"of a tombstone":               {b.feed, 5, "gone", store.ErrNotFound},
		"of no feed":                   {b.feed + 9, 5, "", store.ErrFeedNotFound},
		"of another feed":              {b.feed + 1, 5, "", store.ErrEventNotFound},
	} {
		if _, _, err := b.ExplainEvent(t.Context(), c.feed, c.sequence, c.subscriber, "", 10); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	list, err := b.ExplainSubscriber(t.Context(), "acme", []int64{7, 99, 6})
	if err != nil || len(list) != 2 || list[0].Sequence != 7 || list[1].Sequence != 6 {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, err := b.ExplainSubscriber(t.Context(), "gone", []int64{7}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a tombstone: %v", err)
	}
}
