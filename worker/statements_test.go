package worker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/eventlog"
	"postroad/worker"
)

// queries counts what the wakers of a bundle ask the database at once.
type queries struct{ now, most atomic.Int64 }

// TraceQueryStart implements pgx.QueryTracer.
func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if ctx.Value(q) == nil {
		return ctx
	}
	for now := q.now.Add(1); ; {
		most := q.most.Load()
		if now <= most || q.most.CompareAndSwap(most, now) {
			return ctx
		}
	}
}

// TraceQueryEnd implements pgx.QueryTracer.
func (q *queries) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(q) != nil {
		q.now.Add(-1)
	}
}

// TestWakerStatements learns rows of four feeds at once, each of which takes
// several queries, and wakes them again and again: deliveries need the
// connections too.
func TestWakerStatements(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{ScanRows: 2})
	const rows = 50
	for i := range 4 {
		var err error
		b.feed, err = b.log.CreateFeed(t.Context(), eventlog.FeedSpec{Name: fmt.Sprint("feed", i)})
		b.check(err)
		b.park(fmt.Sprintf("feed%d-", i), rows, property, 0)
		for range 9 {
			b.publish("Office", "")
		}
		b.publish("Property", "")
	}
	w, _ := b.start(quick(func(c *worker.WakerConfig) {
		c.Statements, c.WakeAgain, c.WakeAgainMax = 2, 10*time.Millisecond, 10*time.Millisecond
	}))
	b.eventually(func() bool { return b.signals.subscribers() == 4*rows && w.Counters().Resent.Load() > 4*rows }, "all are woken twice")
	if got := w.Counters().Statements.Load(); got < 4*rows*5 {
		t.Errorf("%d queries, want at least 5 for each row", got)
	}
	// Housekeeping and retention have one each beside the two.
	if got := b.queries.most.Load(); got < 2 || got > 4 {
		t.Errorf("%d queries at once, want 2 and at most 2 of upkeep", got)
	}
}
