package eventlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

func keyed(key, record string) event.Event {
	return event.Event{ResourceName: "Property", ResourceRecordKey: record, IdempotencyKey: key}
}

func numbered(sequence int64, record string) event.Event {
	return event.Event{ResourceName: "Property", ResourceRecordKey: record, Sequence: sequence}
}

// publishCase is one request after others, and what becomes of it.
type publishCase struct {
	name     string
	events   []event.Event
	want     []int64 // the number of each event
	accepted int
	conflict eventlog.ConflictError // without Detail; Kind "" for none
}

func runPublishCases(t *testing.T, b *bundle, feed eventlog.Feed, cases []publishCase) {
	t.Helper()
	for _, c := range cases {
		before := len(b.readAll(feed))
		result, err := b.log.Append(t.Context(), feed, c.events)
		if c.conflict.Kind != "" {
			var conflict *eventlog.ConflictError
			if !errors.As(err, &conflict) {
				t.Fatalf("%s: got %v, want a conflict", c.name, err)
			}
			if conflict.Detail == "" {
				t.Errorf("%s: the conflict has no detail", c.name)
			}
			conflict.Detail = ""
			if *conflict != c.conflict {
				t.Errorf("%s: got %+v, want %+v", c.name, *conflict, c.conflict)
			}
			if stored := len(b.readAll(feed)) - before; stored != 0 {
				t.Errorf("%s: %d events of a refused request were stored", c.name, stored)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		low, high := c.want[0], c.want[0]
		for _, n := range c.want {
			low, high = min(low, n), max(high, n)
		}
		want := eventlog.Result{First: low, Last: high, Accepted: c.accepted, Duplicates: len(c.events) - c.accepted, Sequences: c.want}
		if diff := cmp.Diff(want, result); diff != "" {
			t.Errorf("%s: result (-want +got):\n%s", c.name, diff)
		}
		if stored := len(b.readAll(feed)) - before; stored != c.accepted {
			t.Errorf("%s: %d events were stored, the answer says %d", c.name, stored, c.accepted)
		}
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	idempotency := func(index int, head int64) eventlog.ConflictError {
		return eventlog.ConflictError{Index: index, Kind: eventlog.ConflictIdempotency, Head: head}
	}
	runPublishCases(t, b, b.feed, []publishCase{
		{name: "new keys", events: []event.Event{keyed("a", "1"), keyed("b", "2")}, want: []int64{1, 2}, accepted: 2},
		{name: "the same again", events: []event.Event{keyed("a", "1"), keyed("b", "2")}, want: []int64{1, 2}},
		{name: "one known, one new, one without", events: []event.Event{keyed("b", "2"), keyed("c", "3"), record("4")}, want: []int64{2, 3, 4}, accepted: 2},
		{name: "other content", events: []event.Event{keyed("d", "5"), keyed("a", "other")}, conflict: idempotency(1, 4)},
		{name: "what a refused request carried is not known", events: []event.Event{keyed("d", "6")}, want: []int64{5}, accepted: 1},
		{name: "equal keys in a request, same content", events: []event.Event{keyed("e", "7"), record("8"), keyed("e", "7")}, want: []int64{6, 7, 6}, accepted: 2},
		{name: "equal keys in a request, other content", events: []event.Event{keyed("f", "9"), keyed("f", "10")}, conflict: idempotency(1, 7)},
		{name: "equal known keys in a request", events: []event.Event{keyed("a", "1"), keyed("a", "1")}, want: []int64{1, 1}},
		{name: "events without a key are never repeats", events: []event.Event{record("4"), record("4")}, want: []int64{8, 9}, accepted: 2},
	})
	t.Run("keys count per feed", func(t *testing.T) {
		other := b.newFeed("other", "")
		runPublishCases(t, b, other, []publishCase{
			{name: "key of another feed", events: []event.Event{keyed("a", "other")}, want: []int64{1}, accepted: 1},
		})
	})
	t.Run("an expired key counts as new before it is removed", func(t *testing.T) {
		b.exec(`UPDATE idempotency_keys SET expires_at = clock_timestamp() WHERE key IN ('a', 'b')`)
		runPublishCases(t, b, b.feed, []publishCase{
			{name: "fast", events: []event.Event{keyed("a", "other")}, want: []int64{10}, accepted: 1},
			{name: "beside a repeat", events: []event.Event{keyed("b", "other"), keyed("c", "3")}, want: []int64{11, 3}, accepted: 1},
			{name: "counts again", events: []event.Event{keyed("a", "other"), keyed("b", "other")}, want: []int64{10, 11}},
		})
	})
	t.Run("every member but the key counts as content", func(t *testing.T) {
		full := event.Event{
			ResourceName: "Property", ResourceRecordKey: "k", ResourceRecordURL: "https://x", EventType: "t",
			FeedTypes: []string{"IDX"}, Attributes: map[string]string{"a": "b"}, Related: []string{"r"}, Bulk: true,
			OccurredAt: "2026-01-01T00:00:00Z", Data: json.RawMessage(`{"a": 1}`), IdempotencyKey: "full",
		}
		b.append(b.feed, full)
		for name, change := range map[string]func(e *event.Event){
			"resourceName":      func(e *event.Event) { e.ResourceName = "Member" },
			"resourceRecordKey": func(e *event.Event) { e.ResourceRecordKey = "l" },
			"resourceRecordUrl": func(e *event.Event) { e.ResourceRecordURL = "https://y" },
			"eventType":         func(e *event.Event) { e.EventType = "u" },
			"feedTypes":         func(e *event.Event) { e.FeedTypes = nil },
			"attributes":        func(e *event.Event) { e.Attributes = map[string]string{"a": "c"} },
			"related":           func(e *event.Event) { e.Related = []string{"r", "s"} },
			"bulk":              func(e *event.Event) { e.Bulk = false },
			"occurredAt":        func(e *event.Event) { e.OccurredAt = "2026-01-01T00:00:00.0Z" },
			"data":              func(e *event.Event) { e.Data = json.RawMessage(`{"a":1}`) },
			"no data":           func(e *event.Event) { e.Data = nil },
		} {
			changed := full
			change(&changed)
			var conflict *eventlog.ConflictError
			if _, err := b.log.Append(t.Context(), b.feed, []event.Event{changed}); !errors.As(err, &conflict) {
				t.Errorf("%s: got %v, want a conflict", name, err)
			}
		}
		if result := b.append(b.feed, full); result.Duplicates != 1 {
			t.Errorf("the same event again: got %+v, want a duplicate", result)
		}
	})
}

func TestSuppliedSequences(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	feed := b.newFeed("supplied", eventlog.SequencesSupplied)
	conflict := func(index int, head int64) eventlog.ConflictError {
		return eventlog.ConflictError{Index: index, Kind: eventlog.ConflictSequence, Head: head}
	}
	const last = 1<<63 - 1
	withKey := numbered(70, "y")
	withKey.IdempotencyKey = "key"
	keyReused := numbered(71, "y")
	keyReused.IdempotencyKey = "key"
	runPublishCases(t, b, feed, []publishCase{
		{name: "gaps are allowed", events: []event.Event{numbered(5, "a"), numbered(9, "b")}, want: []int64{5, 9}, accepted: 2},
		{name: "same number, same record", events: []event.Event{numbered(5, "a")}, want: []int64{5}},
		{name: "repeats and news", events: []event.Event{numbered(5, "a"), numbered(9, "b"), numbered(12, "c")}, want: []int64{5, 9, 12}, accepted: 1},
		{name: "same number, other record", events: []event.Event{numbered(9, "other"), numbered(13, "d")}, conflict: conflict(0, 12)},
		{name: "unseen number below the head", events: []event.Event{numbered(5, "a"), numbered(7, "d"), numbered(13, "d")}, conflict: conflict(1, 12)},
		{name: "a refused request raises no head", events: []event.Event{numbered(13, "e")}, want: []int64{13}, accepted: 1},
		{name: "with an idempotency key", events: []event.Event{withKey}, want: []int64{70}, accepted: 1},
		{name: "with the key again", events: []event.Event{withKey}, want: []int64{70}},
		{name: "the number is content", events: []event.Event{keyReused}, conflict: eventlog.ConflictError{Index: 0, Kind: eventlog.ConflictIdempotency, Head: 70}},
		{name: "the highest number", events: []event.Event{numbered(last, "z")}, want: []int64{last}, accepted: 1},
	})

	for name, c := range map[string]struct {
		feed   eventlog.Feed
		events []event.Event
		index  int
	}{
		"number on a feed that assigns": {b.feed, []event.Event{record("a"), numbered(7, "a")}, 1},
		"no number":                     {feed, []event.Event{numbered(100, "a"), record("b")}, 1},
		"negative number":               {feed, []event.Event{numbered(-1, "a")}, 0},
		"number twice in a request":     {feed, []event.Event{numbered(100, "a"), numbered(100, "a")}, 1},
		"falling numbers in a request":  {feed, []event.Event{numbered(101, "a"), numbered(102, "a"), numbered(100, "b")}, 2},
	} {
		var sequence *eventlog.SequenceError
		if _, err := b.log.Append(t.Context(), c.feed, c.events); !errors.As(err, &sequence) || sequence.Index != c.index {
			t.Errorf("%s: got %v, want a sequence error at %d", name, err, c.index)
		}
	}
}

func TestSameKeyFromManyPublishers(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	other := setupAt(t, b.url, eventlog.Config{}) // another process
	release := b.holdFeed(b.feed)
	var wait sync.WaitGroup
	for i := range 32 {
		log := b.log
		if i%2 == 1 {
			log = other.log
		}
		wait.Go(func() {
			result, err := log.Append(t.Context(), b.feed, []event.Event{keyed("once", "r")})
			if err != nil || result.First != 1 {
				t.Errorf("got %+v, %v; want number 1", result, err)
			}
		})
	}
	b.awaitLockWaiters(2) // both processes asked before either stored the key
	release()
	wait.Wait()
	if events := b.readAll(b.feed); len(events) != 1 {
		t.Errorf("the log has %d events, want one", len(events))
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	// held queues requests while the feed is held, so that they become one group.
	held := func(t *testing.T, b *bundle, requests ...[]event.Event) []func() (eventlog.Result, error) {
		release := b.holdFeed(b.feed)
		first := b.appending(t.Context(), b.feed, record("first"))
		b.awaitLockWaiters(1)
		var waiting []func() (eventlog.Result, error)
		queued := 1
		for _, events := range requests {
			waiting = append(waiting, b.appending(t.Context(), b.feed, events...))
			queued += len(events)
			testkit.Eventually(t, soon, func() bool { return b.log.QueuedEvents() == queued }, "request is queued")
		}
		release()
		_, err := first()
		must(t, err)
		return waiting
	}
	t.Run("requests are stored together", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		for i, wait := range held(t, b, records(1), records(2), records(1)) {
			result, err := wait()
			must(t, err)
			if want := []int64{2, 3, 5}[i]; result.First != want {
				t.Errorf("request %d got number %d, want %d", i, result.First, want)
			}
		}
		var transactions int
		must(t, b.pool.QueryRow(t.Context(), `SELECT count(DISTINCT xmin::text) FROM events`).Scan(&transactions))
		if transactions != 2 {
			t.Errorf("4 requests took %d transactions, want the first and a group", transactions)
		}
	})
	t.Run("a group is bounded", func(t *testing.T) {
		t.Parallel()
		big := record("big")
		big.Data = json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
		for name, config := range map[string]eventlog.Config{"events": {GroupEvents: 3}, "bytes": {GroupBytes: 7 * big.Size() / 2}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := setup(t, config)
				for _, wait := range held(t, b, []event.Event{big, big}, []event.Event{big, big}, []event.Event{big}) {
					_, err := wait()
					must(t, err)
				}
				var sizes []int
				must(t, b.pool.QueryRow(t.Context(), `SELECT array_agg(n ORDER BY first) FROM (
					SELECT count(*) AS n, min(sequence) AS first FROM events GROUP BY xmin::text) g`).Scan(&sizes))
				if diff := cmp.Diff([]int{1, 2, 3}, sizes); diff != "" {
					t.Errorf("events stored together (-want +got):\n%s", diff)
				}
			})
		}
	})
	t.Run("one with bad data fails alone", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		answers := held(t, b, []event.Event{record("good")}, []event.Event{record("fine"), record("bad\x00")}, []event.Event{record("better")})
		for i, wait := range answers {
			_, err := wait()
			var data *eventlog.DataError
			if bad := i == 1; bad != errors.As(err, &data) || !bad && err != nil {
				t.Errorf("request %d: got %v", i, err)
			}
		}
		var keys []string
		for _, e := range b.readAll(b.feed) {
			keys = append(keys, e.ResourceRecordKey)
		}
		if diff := cmp.Diff([]string{"first", "good", "better"}, keys); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
	t.Run("one in conflict fails alone", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		answers := held(t, b, []event.Event{keyed("k", "1")}, []event.Event{record("2"), keyed("k", "other")}, []event.Event{keyed("k", "1"), record("3")})
		want := []eventlog.Result{
			{First: 2, Last: 2, Accepted: 1, Sequences: []int64{2}},
			{},
			{First: 2, Last: 3, Accepted: 1, Duplicates: 1, Sequences: []int64{2, 3}},
		}
		for i, wait := range answers {
			result, err := wait()
			var conflict *eventlog.ConflictError
			if refused := i == 1; refused != errors.As(err, &conflict) {
				t.Errorf("request %d: got %v", i, err)
			}
			if diff := cmp.Diff(want[i], result); diff != "" {
				t.Errorf("request %d (-want +got):\n%s", i, diff)
			}
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]eventlog.Config{
		"events": {QueueEvents: 3},
		"bytes":  {QueueBytes: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, config)
			release := b.holdFeed(b.feed)
			// More than fits, but the queue is empty.
			first := b.appending(t.Context(), b.feed, records(5)...)
			b.awaitLockWaiters(1)
			_, err := b.log.Append(t.Context(), b.feed, records(1))
			if !errors.Is(err, eventlog.ErrBusy) {
				t.Errorf("got %v, want ErrBusy", err)
			}
			if after, ok := eventlog.RetryAfter(err); !ok || after <= 0 {
				t.Errorf("the error says to retry after %s, %t", after, ok)
			}
			release()
			_, err = first()
			must(t, err)
			testkit.Eventually(t, soon, func() bool { return b.log.QueuedEvents() == 0 }, "the queue is empty")
			b.append(b.feed, records(1)...)
		})
	}
}

func TestPublisherGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	release := b.holdFeed(b.feed)
	sent, cancelSent := context.WithCancel(t.Context())
	inFlight := b.appending(sent, b.feed, record("in flight"))
	b.awaitLockWaiters(1)
	queued, cancelQueued := context.WithCancel(t.Context())
	waiting := b.appending(queued, b.feed, record("never taken"))
	stays := b.appending(t.Context(), b.feed, record("stays"))
	testkit.Eventually(t, soon, func() bool { return b.log.QueuedEvents() == 3 }, "requests are queued")

	cancelSent()
	cancelQueued()
	if _, err := inFlight(); !errors.Is(err, context.Canceled) || !errors.Is(err, eventlog.ErrUnknownOutcome) {
		t.Errorf("in flight: got %v, want the context's error and ErrUnknownOutcome", err)
	}
	if _, err := waiting(); !errors.Is(err, context.Canceled) || errors.Is(err, eventlog.ErrUnknownOutcome) {
		t.Errorf("never taken: got %v, want the context's error alone", err)
	}
	release()
	_, err := stays()
	must(t, err)
	var keys []string
	for _, e := range b.readAll(b.feed) {
		keys = append(keys, e.ResourceRecordKey)
	}
	if diff := cmp.Diff([]string{"in flight", "stays"}, keys); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestOneSlowFeedHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{Writers: 2})
	other := b.newFeed("other", "")
	release := b.holdFeed(b.feed)
	var held []func() (eventlog.Result, error)
	for range 4 {
		held = append(held, b.appending(t.Context(), b.feed, records(1)...))
	}
	b.awaitLockWaiters(1)
	b.append(other, records(1)...) // hangs where a feed may take more than one writer
	release()
	for _, wait := range held {
		_, err := wait()
		must(t, err)
	}
}

func TestBodiesAreKeptByteForByte(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	var events []event.Event
	for _, line := range testkit.Lines(t, "reso-transport") {
		var e event.Event
		must(t, json.Unmarshal(line, &e))
		events = append(events, e)
	}
	for _, data := range []string{
		`null`, `{"a":1,"a":2}`, `{ "b" : 1.0000000000000000000000000000000001 ,"a":-0}`, "\t[1,\r\n 2] ", `"\u0041\ud83d\ude00"`, `1e400`, `"\u2028"`,
		`"` + strings.Repeat("x", 1<<20) + `"`,
	} {
		events = append(events, event.Event{ResourceName: "N", ResourceRecordKey: "Zürich 😀", Data: json.RawMessage(data)})
	}
	events = append(events, event.Event{
		ResourceName: "N", ResourceRecordKey: "all members", ResourceRecordURL: "https://example.org/" + strings.Repeat("u", 5000), EventType: "t",
		FeedTypes: []string{"IDX", "<&>"}, Attributes: map[string]string{"a": "b", "": "c"}, Related: []string{"https://r"}, Bulk: true,
		OccurredAt: "2026-02-29T23:59:60.123456789+14:00",
	})
	b.append(b.feed, events...)

	got := b.readAll(b.feed)
	if len(got) != len(events) {
		t.Fatalf("the log has %d events of %d", len(got), len(events))
	}
	for i, e := range got {
		if e.RecordedAt.IsZero() || time.Since(e.RecordedAt).Abs() > time.Hour {
			t.Errorf("event %d was recorded at %s", i, e.RecordedAt)
		}
		if !bytes.Equal(e.Data, events[i].Data) || (e.Data == nil) != (events[i].Data == nil) {
			t.Errorf("event %d: data came back as %.200q", i, e.Data)
		}
		e.Sequence, e.RecordedAt, e.Data = 0, time.Time{}, nil
		want := events[i]
		want.Data = nil
		if diff := cmp.Diff(want, e); diff != "" {
			t.Errorf("event %d (-sent +read):\n%.500s", i, diff)
		}
	}
}

func TestSessionsAreDurable(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
		EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$`)
	// A session that went past store.PoolConfig.
	const call = `SELECT append_events(1, false, '1 day', '{1}', NULL, NULL, NULL, '{N}', '{k}', NULL, NULL, NULL, NULL, NULL)`
	conn := b.connect()
	_, err := conn.Exec(t.Context(), call)
	if err == nil || !strings.Contains(err.Error(), "read committed") {
		t.Errorf("append_events under serializable: got %v, want a refusal", err)
	}
	must(t, errors.Join(exec(conn, `BEGIN ISOLATION LEVEL READ COMMITTED`), exec(conn, call)))
	var durable string
	must(t, conn.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&durable))
	if durable != "on" {
		t.Errorf("a transaction that appended commits with synchronous_commit %q", durable)
	}
}
