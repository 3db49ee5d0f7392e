//go:build chaos

package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// TestChaosPassedOver counts the rows of events that PostgreSQL reads for a
// subscriber that matched none of the last million: after a park, a restart of
// the worker, a wake and another park, next to none.
func TestChaosPassedOver(t *testing.T) {
	t.Parallel()
	const n, atOnce, most = 1_000_000, 10_000, 1_000
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	first := setup(t)
	first.create(receiver.URL(), func(s *event.Subscriber) { s.Filter = event.Filter{ResourceNames: []string{"Member"}} })
	observer, err := pgx.Connect(t.Context(), first.url)
	check(t, err)
	defer func() { check(t, observer.Close(context.WithoutCancel(t.Context()))) }()
	// read is exact once every session that read has ended.
	read := func() (rows int64) {
		testkit.Eventually(t, waitMax, func() bool {
			var sessions int
			check(t, observer.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND backend_type = 'client backend'`).Scan(&sessions))
			return sessions == 1
		}, "all sessions but one have ended")
		check(t, observer.QueryRow(t.Context(), `SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)
			FROM pg_stat_user_tables WHERE relname = 'events'`).Scan(&rows))
		return rows
	}
	session := func(linger time.Duration, use func(b *bundle)) {
		b := &bundle{t: t, url: first.url, feed: first.feed}
		cfg := fast
		cfg.Linger = linger
		end, err := b.open(cfg)
		check(t, err)
		defer end()
		use(b)
	}

	session(time.Hour, func(b *bundle) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		deliver := b.start(ctx)
		for range n / atOnce {
			b.publish(properties(atOnce)...)
		}
		testkit.Eventually(t, time.Minute, func() bool { return b.row().Cursor == n }, "the row's position moves")
		cancel()
		deliver.want(contract.OutcomeInterrupted)
	})
	first.end()
	before := read()
	for range 2 { // a run that finds nothing, and one that is woken
		session(time.Millisecond, func(b *bundle) { b.drive(contract.OutcomeParked) })
		session(time.Millisecond, func(b *bundle) {
			b.publish(event.Event{ResourceName: "Member", ResourceRecordKey: "1"})
			b.drive(contract.OutcomeParked)
		})
	}
	after := read()
	t.Logf("%d rows of %d were read, those of %d events among them", after-before, n, receiver.Count())
	if receiver.Count() != 2 || after-before > most {
		t.Errorf("%d rows were read and %d events sent, want %d at most and 2", after-before, receiver.Count(), most)
	}
}
