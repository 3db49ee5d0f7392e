package odata_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"postroad/api/odata"
)

// TestWherePlan: a page above a sequence is read from the primary key within the
// filter's bounds, whatever else it says.
func TestWherePlan(t *testing.T) {
	t.Parallel()
	conn := logOf(t, nil)
	ctx := context.Background()
	for _, sql := range []string{
		`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
			SELECT f, n, now(), 'Property', n::text FROM generate_series(1, 2) AS f, generate_series(1, 20000) AS n`,
		`ANALYZE events`,
	} {
		_, err := conn.Exec(ctx, sql)
		must(t, err)
	}
	for _, c := range []struct{ raw, condition string }{
		{"$filter=EntityEventSequence gt 15000", "(sequence > '15000'::bigint)"},
		{"$filter=ResourceName eq 'Property' and not (EntityEventSequence le 15000)", "(sequence >= '15001'::bigint)"},
		{"$filter=(EntityEventSequence gt 15000 and EventType eq null) or EntityEventSequence eq 17", "(sequence >= '17'::bigint)"},
		{"$orderby=EntityEventSequence desc&$filter=EntityEventSequence lt 9000", "(sequence < '9000'::bigint)"},
	} {
		q := query(t, c.raw)
		b := q.Filter.Bounds(odata.Sequence)
		args := []any{pgx.QueryExecModeSimpleProtocol, int64(1), b.First, b.Last}
		numbered := args[1:]
		where, err := q.Filter.Where(columns, &numbered)
		must(t, err)
		order, err := q.Order.SQL(columns)
		must(t, err)
		rows, _ := conn.Query(ctx, "EXPLAIN SELECT * FROM events e WHERE e.feed_id = $1 AND e.sequence >= $2 AND e.sequence <= $3 AND "+
			where+" ORDER BY "+order+" LIMIT 100", append(args[:1], numbered...)...)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		must(t, err)
		plan := strings.Join(lines, "\n")
		_, index, _ := strings.Cut(plan, "Index Cond")
		if index, _, _ = strings.Cut(index, "\n"); !strings.Contains(plan, "events_pkey") || strings.Contains(plan, "Sort") || !strings.Contains(index, c.condition) {
			t.Errorf("%s:\n%s", c.raw, plan)
		}
	}
}
