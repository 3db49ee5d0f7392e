package eventlog_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

// realEvents are the changes of a real repository.
func realEvents(t testing.TB) []event.Event {
	t.Helper()
	var events []event.Event
	for _, line := range testkit.Lines(t, "sdk-go") {
		var e event.Event
		must(t, json.Unmarshal(line, &e))
		events = append(events, e)
	}
	return events
}

// BenchmarkAppend counts events: 16 publishers with one event per request, then
// one publisher with arrays of 1,000.
func BenchmarkAppend(b *testing.B) {
	events := realEvents(b)
	for _, keys := range []bool{false, true} {
		var n atomic.Int64
		next := func(size int) []event.Event {
			from := n.Add(int64(size)) - int64(size)
			batch := make([]event.Event, size)
			for i := range batch {
				batch[i] = events[(from+int64(i))%int64(len(events))]
				if keys {
					batch[i].IdempotencyKey = fmt.Sprint("key/", from+int64(i))
				}
			}
			return batch
		}
		name := "without keys"
		if keys {
			name = "with keys"
		}
		b.Run("16 publishers/"+name, func(b *testing.B) {
			s := setup(b, eventlog.Config{})
			b.SetParallelism(8) // times GOMAXPROCS
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := s.log.Append(b.Context(), s.feed, next(1)); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
		b.Run("arrays of 1,000/"+name, func(b *testing.B) {
			s := setup(b, eventlog.Config{})
			b.ResetTimer()
			for range b.N {
				s.append(s.feed, next(1000)...)
			}
			b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkFollow counts events that a follower hands out: from pages, for the
// log is there before.
func BenchmarkFollow(b *testing.B) {
	s := setup(b, eventlog.Config{})
	events := realEvents(b)
	stored := 0
	for ; stored < 100_000; stored += len(events) {
		for from := 0; from < len(events); from += 5000 {
			s.append(s.feed, events[from:min(from+5000, len(events))]...)
		}
	}
	for _, filter := range []event.Filter{{}, {EventTypes: []string{"record.deleted"}}} {
		b.Run(strings.Join(append([]string{"types"}, filter.EventTypes...), " "), func(b *testing.B) {
			looked := 0
			for range b.N {
				f := s.log.Follow(s.feed.ID, 0, filter)
				for scanned := int64(0); scanned < int64(stored); looked++ {
					var err error
					if _, scanned, err = f.Next(b.Context(), 500, 1<<20); err != nil {
						b.Fatal(err)
					}
				}
				f.Close()
			}
			b.ReportMetric(float64(stored*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkNotified is the time from an Append to a follower that waits for it.
func BenchmarkNotified(b *testing.B) {
	s := setup(b, eventlog.Config{PollInterval: hourly})
	f := s.log.Follow(s.feed.ID, 0, event.Filter{})
	defer f.Close()
	for b.Loop() {
		s.append(s.feed, record("r"))
		for got := 0; got == 0; {
			must(b, f.Wait(b.Context()))
			events, _, err := f.Next(b.Context(), 10, 1<<20)
			must(b, err)
			got = len(events)
		}
	}
}

// BenchmarkAppendGroup is one transaction of so many events, each with 500 bytes
// of data.
func BenchmarkAppendGroup(b *testing.B) {
	for _, size := range []int{1, 16, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := setup(b, eventlog.Config{})
			events := make([]event.Event, size)
			for i := range events {
				events[i] = event.Event{
					ResourceName: "File", ResourceRecordKey: fmt.Sprintf("internal/client_%d.go", i), EventType: "record.updated",
					OccurredAt: "2021-08-09T00:54:19-07:00", Data: json.RawMessage(`{"message":"` + strings.Repeat("word ", 97) + `"}`),
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				s.append(s.feed, events...)
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
