package eventlog_test

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"postroad/event"
	"postroad/eventlog"
)

// BenchmarkRecordEvents measures a page of a record's events by its p50 and p99,
// in a feed of POSTROAD_EXPLAIN_SIZE events: of one that is each thousandth event,
// of one that was frequent long ago, and of one with five events.
func BenchmarkRecordEvents(b *testing.B) {
	size := 20_000
	if text := os.Getenv("POSTROAD_EXPLAIN_SIZE"); text != "" {
		var err error
		size, err = strconv.Atoi(text)
		must(b, err)
	}
	s := setup(b, eventlog.Config{})
	conn := s.connect()
	for _, sql := range []string{
		`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, event_type)
			SELECT f.id, n, clock_timestamp(), 'Property', CASE WHEN n % 1000 = 0 THEN 'hot' WHEN n % 10 = 1 AND n < size / 10 THEN 'old'
				ELSE (n % (size / 5))::text END, 'Price'
			FROM feeds f, (SELECT ` + strconv.Itoa(size) + `::bigint AS size) s, generate_series(1, size) n WHERE f.name = 'default'`,
		`VACUUM ANALYZE events`,
	} {
		_, err := conn.Exec(b.Context(), sql)
		must(b, err)
	}
	for _, key := range []string{"hot", "old", "77"} {
		b.Run(key, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				_, err := s.log.RecordEvents(b.Context(), s.feed.ID, event.Key{ResourceName: "Property", ResourceRecordKey: key}, 0, 100)
				must(b, err)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
