package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/internal/testkit"
	"postroad/store"
)

// TestOverview holds the sums made in SQL against what each status says, over
// every combination of what decides it.
func TestOverview(t *testing.T) {
	b := setup(t)
	b.publish(0, 1, 2)
	feed := value[int64](b, `SELECT id FROM feeds WHERE name = 'default'`)
	b.exec(`WITH made AS (
			SELECT format('s%s', row_number() OVER ()) AS id, v.*
			FROM (SELECT * FROM unnest('{true,false}'::bool[]) disabled, unnest('{halt,null}'::text[]) halted,
				unnest('{true,false}'::bool[]) paused, unnest('{-1 h,1 h,null}'::interval[]) paused_until,
				unnest('{-1 h,1 h,null}'::interval[]) not_before, unnest('{asked,endpoint,null}'::text[]) class,
				unnest('{0,1}'::int[]) failing, unnest('{true,false}'::bool[]) parked, unnest('{1,2}'::int[]) cursor) v
		), wide AS (
			INSERT INTO subscribers (id, feed_id, config, secrets) SELECT id, $1, '{}', '' FROM made
		)
		INSERT INTO runs (id, feed_id, disabled, halted_reason, paused, paused_until, not_before, wait_class, failures, parked, cursor, in_flight)
		SELECT id, $1, disabled, halted, paused, now() + paused_until, now() + not_before, class, failing, parked, cursor, 0 FROM made`, feed)
	b.exec(`UPDATE runs SET deleted = true WHERE id = 's1'`)
	b.exec(`UPDATE events SET recorded_at = now() - interval '1 hour' WHERE sequence = 2`)
	want := map[string]store.StateOverview{}
	behind := map[string]int64{}
	for after, total := "", 0; ; {
		page, err := b.Statuses(t.Context(), after, 500)
		check(t, err)
		for _, s := range page {
			of := want[s.State]
			of.Subscribers++
			of.LagEvents += s.LagEvents
			of.LagEventsMax = max(of.LagEventsMax, s.LagEvents)
			of.LagMax = max(of.LagMax, time.Duration(s.LagSeconds)*time.Second)
			want[s.State] = of
			if s.LagEvents > 0 {
				behind[s.Subscriber] = s.LagEvents
			}
			after = s.Subscriber
		}
		if total += len(page); len(page) == 0 {
			if n := value[int](b, `SELECT count(*) FROM runs`); total != n-1 {
				t.Errorf("%d statuses of %d", total, n-1)
			}
			break
		}
	}
	got, err := b.Overview(t.Context())
	check(t, err)
	if diff := cmp.Diff(want, got.States, cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < time.Minute })); diff != "" {
		t.Error(diff)
	}
	if len(want) != 7 || got.States[store.StateHalted].LagMax < time.Hour {
		t.Errorf("not every state came about: %v", got.States)
	}
	if len(got.Worst) != store.OverviewWorst {
		t.Errorf("it names %d of %d that are behind", len(got.Worst), len(behind))
	}
	for _, worst := range got.Worst {
		if behind[worst.Subscriber] != worst.Events {
			t.Errorf("%v, want %d behind", worst, behind[worst.Subscriber])
		}
	}
}

// TestOverviewWorst names those furthest behind, over several feeds, and nobody
// else.
func TestOverviewWorst(t *testing.T) {
	b := setup(t)
	b.publish(0, 1, 2, 3, 4)
	b.exec(`INSERT INTO feeds (name, sequences) VALUES ('empty', 'assigned')`)
	b.exec(`WITH wide AS (
			INSERT INTO subscribers (id, feed_id, config, secrets)
			SELECT format('s%s', n), feeds.id, '{}', '' FROM generate_series(0, 5) n JOIN feeds ON name = CASE n WHEN 5 THEN 'empty' ELSE 'default' END
			RETURNING id, feed_id)
		INSERT INTO runs (id, feed_id, cursor, parked) SELECT id, feed_id, substr(id, 2)::int % 5 + 1, id = 's0' FROM wide`)
	got, err := b.Overview(t.Context())
	check(t, err)
	want := []store.SubscriberLag{{Subscriber: "s1", Events: 2}, {Subscriber: "s2", Events: 1}}
	if diff := cmp.Diff(want, got.Worst); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkOverview looks over 100,000 subscribers of ten feeds.
func BenchmarkOverview(b *testing.B) {
	cfg, err := store.PoolConfig(testkit.Database(b, store.Migrate))
	if err != nil {
		b.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	_, err = pool.Exec(b.Context(), `
		INSERT INTO feeds (name) SELECT 'f' || n FROM generate_series(1, 9) n;
		INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
			SELECT id, n, now(), 'Property', n FROM feeds, generate_series(1, 10000) n;
		INSERT INTO subscribers (id, feed_id, config, secrets) SELECT 's' || n, n % 10 + 1, '{}', '' FROM generate_series(1, 100000) n;
		INSERT INTO runs (id, feed_id, cursor, parked) SELECT id, feed_id, random() * 10000, random() < 0.5 FROM subscribers`)
	if err != nil {
		b.Fatal(err)
	}
	s := store.New(pool, nil)
	for b.Loop() {
		if _, err := s.Overview(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
