package planner

import (
	"fmt"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
)

// BenchmarkPlan measures what one event costs from Offer to its answer, with all
// lanes in flight and a snapshot each 250 events.
func BenchmarkPlan(b *testing.B) {
	for _, shape := range []struct{ lanes, batch, keys int }{{1, 1, 1 << 30}, {1, 100, 1 << 30}, {16, 1, 10_000}, {64, 1, 10_000}, {64, 1, 200}, {64, 100, 10_000}} {
		b.Run(fmt.Sprintf("lanes=%d/batch=%d/keys=%d", shape.lanes, shape.batch, shape.keys), func(b *testing.B) {
			benchmarkPlan(b, shape.lanes, shape.batch, shape.keys)
		})
	}
}

func benchmarkPlan(b *testing.B, lanes, batch, keys int) {
	events := make([]*event.Event, b.N)
	for i := range events {
		events[i] = &event.Event{Sequence: int64(i + 1), ResourceName: "Property", ResourceRecordKey: fmt.Sprint(i * 7919 % keys)}
	}
	now := time.Now()
	p := New(Config{Retry: testRetry(), Lanes: event.Count(lanes), BatchSize: event.Count(batch)}, State{}, now)
	ok := &delivery.Answer{Class: delivery.ClassSuccess, Status: 200}
	var flying []*Request
	settled, saved := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for offered := 0; settled < b.N; {
		if n := min(500, p.Room(), b.N-offered); offered < b.N && n >= 250 || n > 0 && n == b.N-offered {
			p.Offer(events[offered:offered+n], nil, int64(offered+n))
			offered += n
		}
		for r := p.Next(now); r != nil; r = p.Next(now) {
			flying = append(flying, r)
		}
		settled += p.Answered(flying[0], ok, now)
		flying = append(flying[:0], flying[1:]...)
		if settled-saved >= 250 {
			p.Committed(p.Snapshot(now).Mark)
			saved = settled
		}
	}
}
