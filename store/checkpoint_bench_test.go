package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// BenchmarkWriteCheckpoints measures one statement that writes the positions of so
// many runs, each of which has moved.
func BenchmarkWriteCheckpoints(b *testing.B) {
	for _, runs := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("runs=%d", runs), func(b *testing.B) {
			s := store.New(openPool(b, testkit.Database(b, store.Migrate)), sealed(b))
			batch := make([]*store.Checkpoint, runs)
			for i := range batch {
				sub := subscriber(fmt.Sprintf("sub%03d", i))
				sub.Start = event.Start{Where: "beginning"}
				_, err := s.Create(b.Context(), sub, event.Secrets{})
				check(b, err)
				batch[i] = &store.Checkpoint{ID: sub.ID, Lease: uuid.New(), Delivered: true, InFlight: 1}
				_, err = s.TakeLease(b.Context(), sub.ID, batch[i].Lease)
				check(b, err)
			}
			b.ReportAllocs()
			for b.Loop() {
				for _, c := range batch {
					c.Number++
					c.Cursor += 100
					c.PreviousSequence, c.Scanned = c.Cursor, c.Cursor+400
				}
				results, err := s.WriteCheckpoints(b.Context(), batch)
				check(b, err)
				if !results[runs-1].Held {
					b.Fatal("the lease is not held")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*runs), "µs/run")
		})
	}
}

// BenchmarkAppendAttempt lays out the row of an ordinary attempt.
func BenchmarkAppendAttempt(b *testing.B) {
	a := store.Attempt{
		Subscriber: "subscriber-01", StartedAt: time.Now(), FirstSequence: 1_234_567, LastSequence: 1_234_567,
		EventCount: 1, Attempt: 1, Class: "success", Status: status(204), Duration: time.Millisecond, RequestBytes: 512,
	}
	var row []byte
	b.ReportAllocs()
	for b.Loop() {
		row = store.AppendAttempt(row[:0], &a)
	}
}
