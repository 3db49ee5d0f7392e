package store_test

import (
	"testing"
	"time"

	"postroad/event"
	"postroad/store"
)

// TestCreateWaitsForTheFloor: a subscriber that is made while a floor is being
// raised begins above it.
func TestCreateWaitsForTheFloor(t *testing.T) {
	for name, start := range map[string]event.Start{
		"from the beginning":   {Where: "beginning"},
		"from below the floor": {Where: "sequence", Sequence: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.publish(time.Hour, 1, 2, 3)
			tx, err := b.pool.Begin(t.Context())
			check(t, err)
			defer func() { _ = tx.Rollback(t.Context()) }()
			_, err = tx.Exec(t.Context(), `UPDATE feeds SET floor_sequence = 2 WHERE name = 'default'`)
			check(t, err)
			created := make(chan error, 1)
			go func() {
				sub := subscriber("acme")
				sub.Start = start
				_, err := b.Create(t.Context(), sub, event.Secrets{})
				created <- err
			}()
			b.awaitLockWaiters(1)
			check(t, tx.Commit(t.Context()))
			check(t, <-created)
			if cursor := value[int64](b, `SELECT cursor FROM runs`); cursor != 2 {
				t.Errorf("it begins at %d, want it at the floor", cursor)
			}
		})
	}
}

func TestStatusRetention(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{Where: "beginning"})
	b.publish(time.Hour, 1, 2)
	status := func() *store.StatusRetention {
		s, err := b.Status(t.Context(), "acme")
		check(t, err)
		return s.Retention
	}
	if r := status(); r != nil {
		t.Errorf("nothing is ever removed, but %+v", r)
	}
	b.exec(`UPDATE feeds SET retention_age_ms = 60000`)
	if r := status(); r != nil {
		t.Errorf("nothing is removed that it is owed, but %+v", r)
	}
	b.exec(`UPDATE feeds SET retention_hard_age_ms = 3 * 3600 * 1000`)
	if r := status(); r == nil || r.RemovedFrom == nil || time.Until(*r.RemovedFrom).Round(time.Minute) != 2*time.Hour || r.LostEvents != 0 {
		t.Errorf("an hour old and kept for three: %+v", r)
	}
	b.exec(`UPDATE runs SET cursor = 2, lost_events = 5, lost_through = 1, lost_at = clock_timestamp()`)
	if r := status(); r == nil || r.RemovedFrom != nil || r.LostEvents != 5 || r.LostThrough != 1 || r.LostAt == nil {
		t.Errorf("caught up, after a loss: %+v", r)
	}
	if row, err := b.Run(t.Context(), "acme"); err != nil || row.LostEvents != 5 || row.LostThrough != 1 {
		t.Errorf("%+v, %v", row, err)
	}
}

func TestEraseExcerpts(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{Where: "beginning"})
	b.publish(0, 1, 2, 3, 4, 5)
	b.exec(`UPDATE events SET resource_key = 'k' WHERE sequence IN (2, 5)`)
	b.exec(`INSERT INTO feeds (name) VALUES ('other')`)
	other := subscriber("other")
	other.Feed = "other"
	_, err := b.Create(t.Context(), other, event.Secrets{})
	check(t, err)
	status := 500
	attempt := func(subscriber string, first, last int64) store.Attempt {
		return store.Attempt{
			Subscriber: subscriber, StartedAt: time.Now(), FirstSequence: first, LastSequence: last, Class: "record", Status: &status,
			Error: "HTTP 500 from the consumer", Response: "excerpt",
		}
	}
	noAnswer := attempt("acme", 5, 5)
	noAnswer.Status = nil
	check(t, b.InsertAttempts(t.Context(), []store.Attempt{
		attempt("acme", 1, 1), attempt("acme", 1, 3), attempt("acme", 3, 4), noAnswer, attempt("other", 2, 2),
	}))
	record := event.Key{ResourceName: "Property", ResourceRecordKey: "k"}
	feed := value[int64](b, `SELECT id FROM feeds WHERE name = 'default'`)
	for _, want := range []int64{2, 0} {
		if n, err := b.EraseExcerpts(t.Context(), feed, record); n != want || err != nil {
			t.Errorf("erased %d, %v; want %d", n, err, want)
		}
	}
	attempts, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{}, 10)
	check(t, err)
	for _, a := range attempts {
		carried := a.FirstSequence == 5 || a.LastSequence == 3
		if (a.Response == "") != carried || a.Error == "" {
			t.Errorf("%+v", a)
		}
	}
	if n := value[int](b, `SELECT count(*) FROM attempts WHERE subscriber = 'other' AND response IS NULL`); n != 0 {
		t.Error("another feed's subscriber lost an excerpt")
	}
}

// TestRetentionBounds: what an API process checks the table checks too.
func TestRetentionBounds(t *testing.T) {
	b := setup(t)
	for _, change := range []string{
		`retention_age_ms = 59999`, `retention_hard_age_ms = 59999`, `retention_age_ms = 60001, retention_hard_age_ms = 60000`,
	} {
		if _, err := b.pool.Exec(t.Context(), `UPDATE feeds SET `+change); err == nil {
			t.Errorf("%s was taken", change)
		}
	}
	if _, err := b.pool.Exec(t.Context(), `UPDATE feeds SET retention_age_ms = 60000, retention_hard_age_ms = 60000`); err != nil {
		t.Error(err)
	}
}
