package eventlog_test

import (
	"fmt"
	"testing"
	"time"

	"postroad/event"
	"postroad/eventlog"
)

// BenchmarkSelections measures, on a log of a million events of 100,000 records,
// what replays and compaction ask of it.
func BenchmarkSelections(b *testing.B) {
	const events = 1_000_000
	log := setup(b, eventlog.Config{})
	log.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, event_type, data)
		SELECT $1, n, clock_timestamp() - interval '1 hour', 'Property', 'k' || hashint8(n) % 50000, 'listing.' || n % 10, repeat('x', 100)
		FROM generate_series(1, $2::bigint) n`, log.feed.ID, events)
	ctx := b.Context()
	var keys []event.Key
	for i := range 10 {
		keys = append(keys, event.Key{ResourceName: "Property", ResourceRecordKey: fmt.Sprint("k", i)})
	}
	timed := func(name string, do func()) {
		began := time.Now()
		do()
		b.ReportMetric(float64(time.Since(began).Microseconds())/1000, "ms-"+name)
	}
	count := func(name string, s eventlog.Selection) {
		s.Through = events
		timed(name, func() {
			_, _, _, err := log.log.Count(ctx, log.feed.ID, s)
			must(b, err)
		})
	}
	for b.Loop() {
		count("count-all", eventlog.Selection{})
		count("count-filtered", eventlog.Selection{Filter: event.Filter{EventTypes: []string{"listing.3"}}})
		count("count-10-records", eventlog.Selection{Keys: keys})
		timed("read-10-records", func() {
			s := log.log.Select(log.feed.ID, eventlog.Selection{Through: events, Keys: keys})
			defer s.Close()
			for scanned := int64(0); scanned < events; {
				var err error
				_, scanned, err = s.Next(ctx, 1_000, 4<<20)
				must(b, err)
			}
		})
		timed("look-ahead-200000", func() {
			_, err := log.log.LookAhead(ctx, log.feed.ID, 0, event.Filter{}, 200_000)
			must(b, err)
		})
	}
	log.compactAfter(log.feed, time.Minute)
	const steps = 20
	slowest := time.Duration(0)
	timed("compact-40000", func() {
		for range steps {
			began := time.Now()
			_, _, err := log.log.Compact(ctx, 10_000)
			must(b, err)
			slowest = max(slowest, time.Since(began))
		}
	})
	b.ReportMetric(float64(slowest.Milliseconds()), "ms-slowest-step")
}
