package eventlog_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"postroad/eventlog"
)

// BenchmarkAppendWhileRemoving counts the events that 16 publishers store, one a
// request, in turns without and with the removal of a million old ones under way
// as the waker does it, and holds one against the other.
func BenchmarkAppendWhileRemoving(b *testing.B) {
	const old, turn = 1_000_000, 2 * time.Second
	s := setup(b, eventlog.Config{})
	s.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, data)
		SELECT $1, i, clock_timestamp() - interval '1 hour', 'Property', (i % 100000)::text, repeat('x', 300)
		FROM generate_series(1, $2::bigint) i`, s.feed.ID, old)
	s.exec(`ANALYZE events`)
	s.keep(s.feed, time.Minute, 0)
	began := time.Now()
	must(b, s.log.Retain(b.Context(), 10_000))
	b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/raise")
	if s.floor(s.feed) != old {
		b.Fatalf("the floor is at %d", s.floor(s.feed))
	}
	var plain, during float64
	var removed, turns int
	var removing time.Duration
	for b.Loop() {
		for removed < old {
			plain += s.publishFor(b, turn)
			ctx, cancel := context.WithTimeout(b.Context(), turn)
			var reaper sync.WaitGroup
			reaper.Go(func() {
				began := time.Now()
				for ctx.Err() == nil && removed < old {
					n, _ := s.log.ReapDeleted(b.Context(), 10_000)
					removed += n
					<-time.After(100 * time.Millisecond)
				}
				removing += time.Since(began)
			})
			during += s.publishFor(b, turn)
			reaper.Wait()
			cancel()
			turns++
		}
	}
	b.ReportMetric(plain/float64(turns)/turn.Seconds(), "events/s-alone")
	b.ReportMetric(during/float64(turns)/turn.Seconds(), "events/s-removing")
	b.ReportMetric(float64(removed)/removing.Seconds(), "removed/s")
}

// publishFor publishes with 16 publishers for that long and returns how many
// events were stored.
func (b *bundle) publishFor(t testing.TB, d time.Duration) float64 {
	var publishers sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	until := time.Now().Add(d)
	for range 16 {
		publishers.Go(func() {
			n := 0
			for ; time.Now().Before(until); n++ {
				if _, err := b.log.Append(t.Context(), b.feed, records(1)); err != nil {
					t.Error(err)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			stored += n
		})
	}
	publishers.Wait()
	return float64(stored)
}
