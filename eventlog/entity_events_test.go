package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"postroad/event"
	"postroad/eventlog"
)

// fill puts events into a feed by the rows of a series.
func (b *bundle) fill(feed int64, events int) {
	b.t.Helper()
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, event_type)
		SELECT $1, n, now(), 'Property', 'k' || n % ($2 / 4), 'record.updated' FROM generate_series(1, $2::bigint) AS n`, feed, events)
}

// above asks for a page of 100 above a sequence, as RESO's clients poll.
func above(feed, sequence int64) eventlog.EntityQuery {
	return eventlog.EntityQuery{
		Feed: feed, First: sequence + 1, Last: math.MaxInt64, Where: "(e.sequence > $1::bigint OR e.event_type IS NULL)", Order: "e.sequence",
		Args: []any{sequence}, Limit: 100,
	}
}

// buffers is how many of them a query looks at.
func (b *bundle) buffers(q eventlog.EntityQuery) int64 {
	b.t.Helper()
	sql, args := q.PageSQL()
	var plan []struct {
		Plan struct {
			Hit  int64 `json:"Shared Hit Blocks"`
			Read int64 `json:"Shared Read Blocks"`
		}
	}
	must(b.t, b.pool.QueryRow(b.t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&plan))
	return plan[0].Plan.Hit + plan[0].Plan.Read
}

// TestEntityEvents_cost: what a page above a sequence looks at does not grow with
// the feed.
func TestEntityEvents_cost(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	const few, many = 10_000, 200_000
	b.fill(1001, few)
	b.fill(1002, many)
	for _, position := range []float64{0, 0.5, 0.98} {
		small := b.buffers(above(1001, int64(few*position)))
		large := b.buffers(above(1002, int64(many*position)))
		t.Logf("at %.0f %%: %d buffers in a feed of %d, %d in one of %d", 100*position, small, few, large, many)
		if large > small+3 || large > 20 {
			t.Errorf("at %.0f %%: %d buffers in a feed of %d, %d in one of %d", 100*position, small, few, large, many)
		}
	}
	record := above(1002, 0)
	record.Record, record.Where, record.Args = "k7", "", nil
	if n := b.buffers(record); n > 30 {
		t.Errorf("the four events of a record: %d buffers", n)
	}
}

// TestEntityEvents_more: whether there is more is known from the rows, and what is
// out of bounds is not there.
func TestEntityEvents_more(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PageBytes: 3000})
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, extras)
		SELECT 1001, n, now(), 'Property', n::text, '{"feedTypes":["IDX","O''x"],"attributes":{"a":"b"}}' FROM generate_series(1, 8) AS n`)
	ask := func(change func(*eventlog.EntityQuery)) string {
		t.Helper()
		q := eventlog.EntityQuery{Feed: 1001, First: 1, Last: 8, Order: "e.sequence", Limit: 100}
		change(&q)
		events, more, total, err := b.log.EntityEvents(t.Context(), q)
		must(t, err)
		numbers := []int64{}
		for _, e := range events {
			numbers = append(numbers, e.Sequence)
			if fmt.Sprint(e.FeedTypes) != "[IDX O'x]" || e.Attributes != nil {
				t.Errorf("event %d: %v %v", e.Sequence, e.FeedTypes, e.Attributes)
			}
		}
		return fmt.Sprint(numbers, more, total)
	}
	for want, change := range map[string]func(*eventlog.EntityQuery){
		"[1 2 3 4 5 6 7 8] false -1": func(*eventlog.EntityQuery) {},
		"[1 2 3] true -1":            func(q *eventlog.EntityQuery) { q.Limit = 3 },
		"[6 7 8] false 8":            func(q *eventlog.EntityQuery) { q.Limit, q.Skip, q.Count = 3, 5, true },
		"[] false 8":                 func(q *eventlog.EntityQuery) { q.Limit, q.Count = 0, true },
		"[3 4] false 2":              func(q *eventlog.EntityQuery) { q.First, q.Last, q.Count = 3, 4, true },
		"[8 7] true -1":              func(q *eventlog.EntityQuery) { q.Order, q.Limit = "e.sequence DESC", 2 },
		"[7 8] false -1":             func(q *eventlog.EntityQuery) { q.After, q.Args = "(e.sequence > $1::bigint)", []any{int64(6)} },
		"[5] false 1":                func(q *eventlog.EntityQuery) { q.Record, q.Count, q.Limit = "5", true, math.MaxInt64 },
		"[] false -1":                func(q *eventlog.EntityQuery) { q.First = 9 },
	} {
		if got := ask(change); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	b.exec(`UPDATE events SET resource_url = repeat('x', 1000)`)
	if got := ask(func(*eventlog.EntityQuery) {}); got != "[1 2 3] true -1" {
		t.Errorf("pages of 3,000 bytes begin with %s", got)
	}
}

// TestEntityEvents_max: a query that takes too long ends, with its connection
// unharmed.
func TestEntityEvents_max(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.fill(1001, 8)
	q := above(1001, 0)
	q.Max = 12 * time.Second
	_, _, _, err := b.log.EntityEvents(t.Context(), q)
	must(t, err)
	var most string
	must(t, b.pool.QueryRow(t.Context(), `SHOW statement_timeout`).Scan(&most))
	if most != "1min" {
		t.Errorf("statement_timeout is %s afterwards", most)
	}
	q.Where, q.Args, q.Max = "(SELECT pg_sleep($1::bigint) IS NOT NULL)", []any{int64(600)}, 30*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, _, _, err := b.log.EntityEvents(ctx, q); !errors.Is(err, eventlog.ErrTooExpensive) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkEntityEvents measures a page of 100 from the end of small and large
// feeds.
func BenchmarkEntityEvents(b *testing.B) {
	for i, events := range []int{10_000, 1_000_000} {
		log := setup(b, eventlog.Config{})
		feed := int64(1001 + i)
		log.fill(feed, events)
		log.exec(`VACUUM ANALYZE events`)
		q := above(feed, int64(events)*98/100)
		b.Run(fmt.Sprint(events), func(b *testing.B) {
			var found []event.Event
			for b.Loop() {
				var err error
				found, _, _, err = log.log.EntityEvents(b.Context(), q)
				must(b, err)
			}
			if len(found) != 100 {
				b.Fatalf("%d events", len(found))
			}
			b.ReportMetric(float64(log.buffers(q)), "buffers")
		})
	}
}
