package activities

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"postroad/store"
)

// TestNewestCheckpoint tries a checkpoint again whose row was locked, while a
// newer one of the same run waits: the newer one is written and answers for both.
func TestNewestCheckpoint(t *testing.T) {
	t.Parallel()
	c, lease := newCheckpointer(nil, newCounters(), slog.New(slog.DiscardHandler)), uuid.New()
	at := func(cursor int64) func(time.Time) *store.Checkpoint {
		return func(time.Time) *store.Checkpoint { return &store.Checkpoint{Lease: lease, Cursor: cursor} }
	}
	var answered []int64
	done := func(cursor int64) func(saved) { return func(saved) { answered = append(answered, cursor) } }
	c.submit(lease, at(5), done(5))
	locked := c.take(0)
	c.submit(lease, at(9), done(9))
	c.again(locked[0])
	group := c.take(0)
	_, batch := c.render(group)
	if len(batch) != 1 || batch[0].Cursor != 9 {
		t.Fatalf("%d checkpoints, the first up to %d", len(batch), batch[0].Cursor)
	}
	group[0].resolve(saved{})
	if len(answered) != 2 || answered[0] != 5 || answered[1] != 9 {
		t.Errorf("answered %v", answered)
	}
}
