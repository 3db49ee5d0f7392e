package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// explainSizeEnv is how many events and attempts BenchmarkExplain makes; the
// figures of docs/OPERATIONS.md are of 10,000,000.
const explainSizeEnv = "POSTROAD_EXPLAIN_SIZE"

// crowd fills a database as a busy week leaves it: events of one feed, an eighth
// of the attempts on each day. Of the attempts, half are busy's, one a request; a
// tenth are batch's, requests of 100 with as many others between; the rest are those of 100 more
// subscribers. Each 1,000th event is of one record.
func crowd(t testing.TB, pool *pgxpool.Pool, size int) (feed int64) {
	t.Helper()
	ctx := context.Background()
	conn, err := pool.Acquire(ctx)
	check(t, err)
	defer conn.Release()
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := conn.Exec(ctx, sql, args...)
		check(t, err)
	}
	exec(`SET statement_timeout = 0`)
	s := store.New(pool, sealed(t))
	check(t, s.EnsurePartitions(ctx, 1))
	for day := range 8 { // of the past
		exec(fmt.Sprintf(`DO $$ DECLARE d date := current_date - %d; BEGIN
			EXECUTE format('CREATE TABLE IF NOT EXISTS attempts_%%s PARTITION OF attempts FOR VALUES FROM (%%L) TO (%%L)',
				to_char(d, 'YYYYMMDD'), d::timestamptz, (d + 1)::timestamptz); END $$`, day))
	}
	check(t, s.EnsureAttemptIndexes(ctx))
	for n := range 102 {
		id := fmt.Sprintf("sub%03d", n)
		switch n {
		case 100:
			id = "busy"
		case 101:
			id = "batch"
		}
		sub := subscriber(id)
		sub.Start = event.Start{Where: "beginning"}
		_, err := s.Create(ctx, sub, event.Secrets{})
		check(t, err)
	}
	exec(`UPDATE subscribers SET created_at = clock_timestamp() - interval '30 days'`)
	exec(`SELECT id FROM feeds WHERE name = 'default'`)
	check(t, conn.QueryRow(ctx, `SELECT id FROM feeds WHERE name = 'default'`).Scan(&feed))
	exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, event_type)
		SELECT $1, n, clock_timestamp() - interval '8 days' * (1 - n::float8 / $2), 'Property',
			CASE WHEN n % 1000 = 0 THEN 'hot' ELSE (n % ($2 / 5))::text END, 'Price' FROM generate_series(1, $2::bigint) n`, feed, size)
	const columns = `INSERT INTO attempts (subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, status, duration_us, request_bytes)`
	at := `clock_timestamp() - interval '7 days' * (1 - n::float8 / $1)`
	exec(columns+` SELECT CASE WHEN n % 2 = 0 THEN 'busy' ELSE 'sub' || to_char(n / 2 % 100, 'FM000') END, `+at+`,
		n, n, 1, 1, 'success', 200, 1000, 500 FROM generate_series(1, $1 * 9 / 10) n`, int64(size))
	exec(columns+` SELECT 'batch', `+at+`, n * 2 % $1, n * 2 % $1 + 199, 100, 1, 'success', 200, 1000, 500 FROM generate_series(1, $1 / 10) n`, int64(size))
	exec(`UPDATE runs SET cursor = $1, start_sequence = 0`, int64(size))
	exec(`VACUUM ANALYZE events`)
	exec(`VACUUM ANALYZE attempts`)
	return feed
}

func sealed(t testing.TB) *store.Sealer {
	t.Helper()
	sealer, err := store.NewSealer(testKey)
	check(t, err)
	return sealer
}

// BenchmarkExplain measures answers to "did it get there?" by their p50 and p99.
func BenchmarkExplain(b *testing.B) {
	size := 20_000
	if text := os.Getenv(explainSizeEnv); text != "" {
		var err error
		size, err = strconv.Atoi(text)
		check(b, err)
	}
	url := testkit.Database(b, store.Migrate)
	pool := openPool(b, url)
	feed := crowd(b, pool, size)
	s := store.New(pool, sealed(b))
	any := func() int64 { return rand.Int64N(int64(size)) + 1 }
	for _, bench := range []struct {
		name    string
		explain func() error
	}{
		{"one subscriber of many attempts", func() error {
			_, _, err := s.ExplainEvent(b.Context(), feed, any(), "busy", "", 1)
			return err
		}},
		{"one subscriber of wide batches", func() error {
			_, _, err := s.ExplainEvent(b.Context(), feed, any(), "batch", "", 1)
			return err
		}},
		{"one subscriber of few attempts", func() error {
			_, _, err := s.ExplainEvent(b.Context(), feed, any(), "sub007", "", 1)
			return err
		}},
		{"100 subscribers", func() error {
			_, _, err := s.ExplainEvent(b.Context(), feed, any(), "", "", 100)
			return err
		}},
		{"100 events of the hot record", func() error {
			var sequences []int64
			for n := range int64(min(100, size/1000)) {
				sequences = append(sequences, int64(size)/1000*1000-n*1000)
			}
			_, err := s.ExplainSubscriber(b.Context(), "busy", sequences)
			return err
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				check(b, bench.explain())
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkInsertAttempts measures what the index that explains costs those who
// insert: attempts of 50 subscribers in groups of 1,000.
func BenchmarkInsertAttempts(b *testing.B) {
	for _, indexed := range []bool{true, false} {
		b.Run(fmt.Sprintf("indexed=%t", indexed), func(b *testing.B) {
			pool := openPool(b, testkit.Database(b, store.Migrate))
			if !indexed {
				_, err := pool.Exec(b.Context(), `DROP INDEX attempts_event`)
				check(b, err)
			}
			s := store.New(pool, nil)
			check(b, s.EnsurePartitions(b.Context(), 0))
			now, sequence, group := time.Now(), int64(0), make([]store.Attempt, 1000)
			b.ReportAllocs()
			for b.Loop() {
				for i := range group {
					if i%50 == 0 {
						sequence++
					}
					group[i] = store.Attempt{
						Subscriber: fmt.Sprintf("subscriber-%02d", i%50), StartedAt: now, FirstSequence: sequence, LastSequence: sequence,
						EventCount: 1, Attempt: 1, Class: "success", Status: status(200), Duration: time.Millisecond, RequestBytes: 512,
					}
				}
				check(b, s.InsertAttempts(b.Context(), group))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(group)), "µs/attempt")
		})
	}
}

// statements notes what is asked of the database.
type statements struct {
	mu   sync.Mutex
	list []pgx.TraceQueryStartData
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, data)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (s *statements) TraceBatchQuery(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	s.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: data.SQL, Args: data.Args})
}

// TraceBatchEnd implements pgx.BatchTracer.
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TestExplain_plans: whatever is asked of tables that grow is found by an index,
// the attempts by the one that is made for it.
func TestExplain_plans(t *testing.T) {
	t.Parallel()
	url := testkit.Database(t, store.Migrate)
	feed := crowd(t, openPool(t, url), 5_000)
	cfg, err := store.PoolConfig(url)
	check(t, err)
	asked := &statements{}
	cfg.ConnConfig.Tracer = asked
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	check(t, err)
	defer pool.Close()
	_, err = pool.Exec(t.Context(), `DELETE FROM attempts WHERE first_sequence = 3;
		UPDATE subscribers SET config = config || '{"compact":"catchUp"}'`, pgx.QueryExecModeSimpleProtocol)
	check(t, err)
	asked.list = nil
	s := store.New(pool, nil)
	_, list, err := s.ExplainEvent(t.Context(), feed, 3, "", "", 10)
	check(t, err)
	if len(list) != 10 {
		t.Fatalf("%d subscribers", len(list))
	}
	_, err = s.ExplainSubscriber(t.Context(), "busy", []int64{3, 2})
	check(t, err)
	attempts, plans := regexp.MustCompile(`Scan( Backward)? using attempts_\w+ on attempts_\d{8}`), 0
	for _, statement := range slices.Clone(asked.list) {
		if !strings.HasPrefix(strings.TrimSpace(statement.SQL), "SELECT") && !strings.HasPrefix(strings.TrimSpace(statement.SQL), "WITH") {
			continue
		}
		rows, err := pool.Query(t.Context(), `EXPLAIN `+statement.SQL, statement.Args...)
		check(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		check(t, err)
		plans++
		plan := strings.Join(lines, "\n")
		if regexp.MustCompile(`Seq Scan on (events|attempts|controls|held|dead|replays|subscribers|runs)`).MatchString(plan) {
			t.Errorf("a table is read whole:\n%s\n%s", statement.SQL, plan)
		}
		for _, scan := range attempts.FindAllString(plan, -1) {
			if !strings.Contains(scan, "_expr_idx") {
				t.Errorf("attempts by another index: %s\n%s", scan, plan)
			}
		}
	}
	if plans < 15 {
		t.Errorf("%d plans", plans)
	}
}
