package planner

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
)

// ladder is a schedule whose steps tell themselves apart.
var ladder = []event.Duration{event.Duration(time.Second), event.Duration(2 * time.Second), event.Duration(4 * time.Second)}

func testRetry() event.Retry {
	return event.Retry{Schedule: ladder, GiveUpAfter: event.Duration(time.Minute), EventAttempts: 3, MaxRetryAfter: event.Day}
}

func testConfig(lanes, batch event.Count, onExhausted string) Config {
	return Config{
		Retry: testRetry(), Lanes: lanes, BatchSize: batch, OnExhausted: onExhausted,
		Jitter: func() float64 { return 0 },
	}
}

// eventsFrom makes an event for each key, from sequence first on.
func eventsFrom(first int64, keys ...string) []*event.Event {
	var list []*event.Event
	for i, key := range keys {
		list = append(list, &event.Event{Sequence: first + int64(i), ResourceName: "Property", ResourceRecordKey: key})
	}
	return list
}

// distinct are n keys.
func distinct(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i+1)
	}
	return keys
}

func key(name string) event.Key { return event.Key{ResourceName: "Property", ResourceRecordKey: name} }

func status(class delivery.Class, code int) *delivery.Answer {
	return &delivery.Answer{Class: class, Status: code}
}

func accepted() *delivery.Answer { return status(delivery.ClassSuccess, 200) }
func refused() *delivery.Answer  { return status(delivery.ClassRecord, 422) }
func down() *delivery.Answer     { return status(delivery.ClassEndpoint, 502) }

func askedFor(d time.Duration) *delivery.Answer {
	return &delivery.Answer{Class: delivery.ClassAsked, Status: 429, RetryAfter: d, RetryAfterValid: true}
}

// story tells what happens to a subscriber, one request after another.
type story struct {
	*Plan
	t   *testing.T
	cfg Config
	now time.Time
	log []*event.Event
}

// tell begins a story of events that were all offered.
func tell(t *testing.T, cfg Config, log []*event.Event) *story {
	t.Helper()
	s := &story{t: t, cfg: cfg, now: time.Unix(1000, 0), log: log, Plan: New(cfg, State{}, time.Unix(1000, 0))}
	s.Offer(log, nil, log[len(log)-1].Sequence)
	return s
}

// sends wants a request of just these events.
func (s *story) sends(sequences ...int64) *Request {
	s.t.Helper()
	r := s.Next(s.now)
	if r == nil {
		s.t.Fatalf("sends nothing, want %v; stopped %v %+v %q", sequences, s.Stopped(), s.Wait(), s.Halted())
	}
	if got := sequencesOf(r.Events); !slices.Equal(got, sequences) {
		s.t.Fatalf("sends %v, want %v", got, sequences)
	}
	return r
}

func (s *story) sendsNothing() {
	s.t.Helper()
	if r := s.Next(s.now); r != nil {
		s.t.Fatalf("sends %v", sequencesOf(r.Events))
	}
}

// waits wants a wait of that class and length in force.
func (s *story) waits(class string, d time.Duration) {
	s.t.Helper()
	if w := s.Wait(); w == nil || w.Class != class || w.Until.Sub(s.now) != d {
		s.t.Fatalf("waits %+v, %v; want %s %v", w, s.now, class, d)
	}
}

// again begins a new run once the wait is over, from what a checkpoint would
// have; d is what passes if there is no wait.
func (s *story) again(d time.Duration, change ...func(*Config, *State)) {
	s.t.Helper()
	saved := s.Snapshot(s.now)
	if saved.Wait != nil {
		d = saved.Wait.Until.Sub(s.now)
	}
	s.now = s.now.Add(d)
	db := database{snapshot: saved}
	state := db.state(s.now)
	for _, h := range s.held {
		k := heldRow(h)
		k.Wait = max(0, h.due.Sub(s.now))
		state.Held = append(state.Held, k)
	}
	for _, c := range change {
		c(&s.cfg, &state)
	}
	s.Plan = New(s.cfg, state, s.now)
	s.Offer(s.log, nil, s.log[len(s.log)-1].Sequence)
}

// position wants the cursor and the ranges above it.
func (s *story) position(cursor int64, settled ...int64) {
	s.t.Helper()
	if at := s.Snapshot(s.now); at.Cursor != cursor || !slices.Equal(at.Settled, settled) {
		s.t.Fatalf("cursor %d, settled %v; want %d, %v", at.Cursor, at.Settled, cursor, settled)
	}
}

func sequencesOf(events []*event.Event) []int64 {
	list := make([]int64, len(events))
	for i, e := range events {
		list[i] = e.Sequence
	}
	return list
}
