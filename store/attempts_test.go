package store_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"postroad/store"
)

func status(code int) *int { return &code }

func TestAttempts(t *testing.T) {
	t.Parallel()
	t.Run("come back as they were stored, newest first", func(t *testing.T) {
		b := setup(t)
		check(t, b.EnsurePartitions(t.Context(), 0))
		now := value[time.Time](b, `SELECT clock_timestamp()`)
		want := []store.Attempt{
			{
				Subscriber: "acme", StartedAt: now, FirstSequence: 1, LastSequence: 3, EventCount: 3, Attempt: 1, Class: "asked", Status: status(429),
				Duration: 1500 * time.Microsecond, RequestBytes: 512, Error: "HTTP 429", Response: "slow down", RetryAfter: "60",
			},
			{Subscriber: "acme", StartedAt: now, FirstSequence: 1, LastSequence: 3, EventCount: 3, Attempt: 2, Class: "success", Status: status(200)},
			{Subscriber: "acme", StartedAt: now, FirstSequence: 4, LastSequence: 4, EventCount: 1, Attempt: 1, Class: "endpoint", Error: "connection refused"},
			{Subscriber: "acme", StartedAt: now, FirstSequence: 4, LastSequence: 9, EventCount: 2, Attempt: 1, Class: "success", Status: status(204), Sequences: []int64{4, 9}, Replay: 7, Compacted: 3},
		}
		check(t, b.InsertAttempts(t.Context(), append(want[:1:1], store.Attempt{Subscriber: "other", StartedAt: now, Class: "success", Status: status(200)})))
		check(t, b.InsertAttempts(t.Context(), want[1:]))
		check(t, b.InsertAttempts(t.Context(), nil))
		got, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{}, 10)
		check(t, err)
		if len(got) != 4 || got[0].ID <= got[1].ID || got[1].ID <= got[2].ID || got[2].ID <= got[3].ID {
			t.Fatalf("got %+v", got)
		}
		for i := range got {
			expect := want[len(want)-1-i]
			expect.ID = got[i].ID
			if diff := cmp.Diff(expect, got[i]); diff != "" {
				t.Error(diff)
			}
		}
		page, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{BeforeID: got[0].ID}, 1)
		check(t, err)
		if len(page) != 1 || page[0].ID != got[1].ID {
			t.Errorf("page is %+v", page)
		}
		failures, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{FailuresOnly: true}, 10)
		check(t, err)
		if len(failures) != 2 || failures[0].Class != "endpoint" || failures[1].Class != "asked" {
			t.Errorf("failures are %+v", failures)
		}
	})
	t.Run("a response that is no text", func(t *testing.T) {
		b := setup(t)
		check(t, b.InsertAttempts(t.Context(), []store.Attempt{{Subscriber: "acme", StartedAt: time.Now(), Class: "success", Response: "a\x00b\xff\xfec"}}))
		got, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{}, 1)
		check(t, err)
		if len(got) != 1 || got[0].Response != "a\ufffdb\ufffdc" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestEnsurePartitions(t *testing.T) {
	t.Parallel()
	insert := func(b *bundle, at time.Time) {
		b.t.Helper()
		check(b.t, b.InsertAttempts(b.t.Context(), []store.Attempt{{Subscriber: "acme", StartedAt: at, Class: "success", Status: status(200)}}))
	}
	t.Run("several processes, while attempts come in", func(t *testing.T) {
		b := setup(t)
		now := value[time.Time](b, `SELECT clock_timestamp()`)
		g, ctx := errgroup.WithContext(t.Context())
		for range 4 {
			g.Go(func() error { return b.EnsurePartitions(ctx, 7) })
		}
		for day := range 4 {
			g.Go(func() error {
				for range 25 {
					at := now.AddDate(0, 0, 2*day)
					if err := b.InsertAttempts(ctx, []store.Attempt{{Subscriber: "acme", StartedAt: at, Class: "success"}}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		check(t, g.Wait())
		if n := value[int](b, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'attempts'::regclass`); n != 9 {
			t.Errorf("%d partitions", n)
		}
		if n, stray := value[int](b, `SELECT count(*) FROM attempts`), value[int](b, `SELECT count(*) FROM attempts_default`); n != 100 || stray != 0 {
			t.Errorf("%d attempts, %d of them in the default partition", n, stray)
		}
	})
	t.Run("attempts of a day without a partition move into it", func(t *testing.T) {
		b := setup(t)
		now := value[time.Time](b, `SELECT clock_timestamp()`)
		insert(b, now)
		insert(b, now.AddDate(0, 0, 1))
		insert(b, now.AddDate(1, 0, 0))
		before, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{}, 10)
		check(t, err)
		var log bytes.Buffer
		logging := store.New(b.pool, nil, store.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		check(t, logging.EnsurePartitions(t.Context(), 1))
		after, err := b.Attempts(t.Context(), "acme", store.AttemptFilter{}, 10)
		check(t, err)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error(diff)
		}
		if n := value[int](b, `SELECT count(*) FROM attempts_default`); n != 1 {
			t.Errorf("%d attempts are left in the default partition", n)
		}
		if n := strings.Count(log.String(), "attempts=1"); n != 2 {
			t.Errorf("log:\n%s", log.String())
		}
		insert(b, now) // the identity still draws ids
	})
}

func TestDropOldPartitions(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	check(t, b.EnsurePartitions(ctx, 1))
	today := value[time.Time](b, `SELECT clock_timestamp()`).UTC().Truncate(24 * time.Hour)
	for _, age := range []int{7, 8, 9} {
		from := today.AddDate(0, 0, -age)
		b.exec(`CREATE TABLE attempts_` + from.Format("20060102") + ` PARTITION OF attempts FOR VALUES FROM ('` +
			from.Format(time.RFC3339) + `') TO ('` + from.AddDate(0, 0, 1).Format(time.RFC3339) + `')`)
	}
	for _, age := range []int{0, 7, 8, 9, 20, 6} { // 20 and 6 days: the default partition
		check(t, b.InsertAttempts(ctx, []store.Attempt{{Subscriber: "acme", StartedAt: today.AddDate(0, 0, -age), Attempt: age, Class: "success"}}))
	}
	dropped, err := b.DropOldPartitions(ctx, 7)
	check(t, err)
	if dropped != 2 {
		t.Errorf("dropped %d", dropped)
	}
	left, err := b.Attempts(ctx, "acme", store.AttemptFilter{}, 10)
	check(t, err)
	var ages []int
	for _, a := range left {
		ages = append(ages, a.Attempt)
	}
	if diff := cmp.Diff([]int{6, 7, 0}, ages); diff != "" {
		t.Error(diff)
	}
	g, ctx := errgroup.WithContext(ctx)
	for range 3 {
		g.Go(func() error {
			_, err := b.DropOldPartitions(ctx, 1)
			return err
		})
	}
	check(t, g.Wait())
	if n := value[int](b, `SELECT count(*) FROM attempts`); n != 1 {
		t.Errorf("%d attempts are left", n)
	}
}
