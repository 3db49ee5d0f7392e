package store_test

import (
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"postroad/store"
)

// attemptIndexes counts the partitions of attempts, and those of them whose
// index is valid and part of the common one.
func attemptIndexes(b *bundle) (partitions, indexed int) {
	b.t.Helper()
	check(b.t, b.pool.QueryRow(b.t.Context(), `SELECT count(*), count(*) FILTER (WHERE EXISTS (
			SELECT FROM pg_index x JOIN pg_inherits h ON h.inhrelid = x.indexrelid
			WHERE x.indrelid = p.inhrelid AND x.indisvalid AND h.inhparent = 'attempts_event'::regclass))
		FROM pg_inherits p WHERE p.inhparent = 'attempts'::regclass`).Scan(&partitions, &indexed))
	return partitions, indexed
}

func TestEnsureAttemptIndexes(t *testing.T) {
	t.Parallel()
	t.Run("partitions made since have it", func(t *testing.T) {
		b := setup(t)
		check(t, b.EnsurePartitions(t.Context(), 2))
		if partitions, indexed := attemptIndexes(b); partitions != 4 || indexed != 3 { // all but the default one
			t.Errorf("%d of %d partitions", indexed, partitions)
		}
	})
	t.Run("those from before get it", func(t *testing.T) {
		b := setup(t)
		definition := value[string](b, `SELECT pg_get_indexdef('attempts_event'::regclass)`)
		b.exec(`DROP INDEX attempts_event`)
		check(t, b.EnsurePartitions(t.Context(), 1))
		b.exec(definition)
		check(t, b.InsertAttempts(t.Context(), []store.Attempt{{Subscriber: "acme", StartedAt: time.Now(), Class: "success"}}))
		if _, indexed := attemptIndexes(b); indexed != 0 {
			t.Fatalf("%d partitions are indexed", indexed)
		}
		check(t, b.EnsureAttemptIndexes(t.Context()))
		if partitions, indexed := attemptIndexes(b); partitions != 3 || indexed != 3 {
			t.Errorf("%d of %d partitions", indexed, partitions)
		}
		if !value[bool](b, `SELECT indisvalid FROM pg_index WHERE indexrelid = 'attempts_event'::regclass`) {
			t.Error("the common index is not valid")
		}
		check(t, b.EnsureAttemptIndexes(t.Context()))
	})
	t.Run("a build that was broken off", func(t *testing.T) {
		b := setup(t)
		check(t, b.InsertAttempts(t.Context(), []store.Attempt{{Subscriber: "a", StartedAt: time.Now(), Class: "success"}, {Subscriber: "b", StartedAt: time.Now(), Class: "success"}}))
		if _, err := b.pool.Exec(t.Context(), `CREATE UNIQUE INDEX CONCURRENTLY attempts_default_event ON attempts_default (class)`); err == nil {
			t.Fatal("it was not broken off")
		}
		check(t, b.EnsureAttemptIndexes(t.Context()))
		if partitions, indexed := attemptIndexes(b); partitions != 1 || indexed != 1 {
			t.Errorf("%d of %d partitions", indexed, partitions)
		}
	})
	t.Run("beside inserts", func(t *testing.T) {
		b := setup(t)
		now := value[time.Time](b, `SELECT clock_timestamp()`)
		g, ctx := errgroup.WithContext(t.Context())
		g.Go(func() error {
			for range 3 {
				if err := b.EnsureAttemptIndexes(ctx); err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			for range 100 {
				if err := b.InsertAttempts(ctx, []store.Attempt{{Subscriber: "acme", StartedAt: now, Class: "success"}}); err != nil {
					return err
				}
			}
			return nil
		})
		check(t, g.Wait())
		if partitions, indexed := attemptIndexes(b); partitions != 1 || indexed != 1 {
			t.Errorf("%d of %d partitions", indexed, partitions)
		}
	})
}
