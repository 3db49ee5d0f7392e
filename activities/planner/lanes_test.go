package planner

import (
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// TestLanes tells who may start beside whom.
func TestLanes(t *testing.T) {
	t.Parallel()
	t.Run("keys do not overtake themselves", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(3, 1, event.OnExhaustedHalt), eventsFrom(1, "a", "a", "b", "c", "d"))
		first, second := s.sends(1), s.sends(3)
		s.sends(4)
		s.sendsNothing() // three lanes
		s.Answered(second, accepted(), s.now)
		s.position(0, 3, 3)
		s.sends(5)
		s.Answered(first, accepted(), s.now)
		s.position(1, 3, 3)
		s.sends(2)
	})
	t.Run("a batch holds several of one key", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 3, event.OnExhaustedHalt), eventsFrom(1, "a", "a", "b", "a", "c", "b", "d"))
		first := s.sends(1, 2, 3)
		second := s.sends(5, 7)
		if !first.Contiguous || first.NoPrevious || second.Contiguous || !second.NoPrevious {
			t.Errorf("%+v, %+v", first, second)
		}
		s.Answered(first, accepted(), s.now)
		if r := s.sends(4, 6); r.Contiguous {
			t.Error("4 and 6 are said to be all from 4 to 6")
		}
	})
	t.Run("Accepted-Through of a request with gaps", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 2, event.OnExhaustedHalt), eventsFrom(1, "a", "a", "a", "b", "c"))
		s.sends(1, 2)
		r := s.sends(4, 5)
		if n := s.Answered(r, &delivery.Answer{Class: delivery.ClassRecord, Status: 500, AcceptedThrough: 4}, s.now); n != 1 {
			t.Errorf("settled %d", n)
		}
		s.position(0, 4, 4)
	})
	t.Run("a refused batch is bisected in its lane", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 4, event.OnExhaustedHalt), eventsFrom(1, "a", "b", "c", "d", "d", "e"))
		s.Answered(s.sends(1, 2, 3, 4), refused(), s.now)
		half := s.sends(1, 2)
		other := s.sends(6) // d is taken
		s.Answered(half, accepted(), s.now)
		s.Answered(s.sends(3), refused(), s.now) // it stands alone: 4 is free
		s.Answered(other, accepted(), s.now)
		s.sends(4, 5)
		s.sendsNothing()
		if due, ok := s.Due(s.now); !ok || due != s.now.Add(time.Second) {
			t.Errorf("due %v", due)
		}
	})
	t.Run("refused events keep their lanes", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 1, event.OnExhaustedHalt), eventsFrom(1, "a", "b", "c"))
		a, b := s.sends(1), s.sends(2)
		s.Answered(a, refused(), s.now)
		s.sendsNothing()
		s.now = s.now.Add(time.Second / 2)
		s.Answered(b, refused(), s.now)
		s.waits(store.WaitRecord, time.Second/2)
		s.again(0)
		r := s.sends(1) // alone: it is the first after a wait
		s.sendsNothing()
		s.Answered(r, accepted(), s.now)
		s.sends(3)
		s.sendsNothing()
		s.now = s.now.Add(time.Second / 2)
		s.sends(2)
	})
	t.Run("fewer lanes keep the first attempts", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(3, 1, event.OnExhaustedHalt), eventsFrom(1, "a", "b", "c"))
		for _, r := range []*Request{s.sends(1), s.sends(2), s.sends(3)} {
			s.Answered(r, refused(), s.now)
		}
		s.again(0, func(c *Config, _ *State) { c.Lanes = 2 })
		if at := s.Snapshot(s.now); len(at.Failing) != 2 || at.Failing[1].Sequence != 2 {
			t.Errorf("failing %+v", at.Failing)
		}
		s.again(0, func(c *Config, _ *State) { c.Lanes = 1 })
		if at := s.Snapshot(s.now); len(at.Failing) != 1 || at.Failing[0].Sequence != 1 || at.EventAttempt != 1 {
			t.Errorf("failing %+v", at.Failing)
		}
	})
	t.Run("one lane forgets what is not its first", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 1, event.OnExhaustedHalt), eventsFrom(1, "a", "b"))
		s.sends(1)
		s.Answered(s.sends(2), refused(), s.now)
		s.again(0, func(c *Config, _ *State) { c.Lanes = 1 })
		s.sends(1)
		if at := s.Snapshot(s.now); len(at.Failing) != 0 {
			t.Errorf("failing %+v", at.Failing)
		}
	})
	t.Run("a request that was not sent", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 2, event.OnExhaustedHalt), eventsFrom(1, "a", "b", "c"))
		for range 3 {
			r := s.sends(1, 2)
			if r.Attempt != 1 {
				t.Errorf("attempt %d", r.Attempt)
			}
			s.Return(r)
			if requests, events := s.InFlight(); requests != 0 || events != 0 {
				t.Errorf("in flight: %d, %d", requests, events)
			}
		}
	})
}

// TestLate tells what answers do that come after a wait or a hold was set.
func TestLate(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, a *delivery.Answer) (*story, *Request, *Request) {
		t.Helper()
		t.Parallel()
		s := tell(t, testConfig(3, 1, event.OnExhaustedHalt), eventsFrom(1, "a", "b", "c", "d"))
		first, second, third := s.sends(1), s.sends(2), s.sends(3)
		s.Answered(first, a, s.now)
		s.sendsNothing()
		return s, second, third
	}
	t.Run("2xx settles and ends no wait", func(t *testing.T) {
		s, second, _ := begin(t, down())
		s.Answered(second, accepted(), s.now)
		s.waits(store.WaitEndpoint, time.Second)
		s.position(0, 2, 2)
		if at := s.Snapshot(s.now); at.Failures != 1 || !at.Probe {
			t.Errorf("%+v", at)
		}
	})
	t.Run("failures of all lanes are one step", func(t *testing.T) {
		s, second, third := begin(t, down())
		s.now = s.now.Add(time.Second / 2)
		s.Answered(second, down(), s.now)
		s.Answered(third, down(), s.now)
		s.waits(store.WaitEndpoint, time.Second/2)
		if at := s.Snapshot(s.now); at.Failures != 1 {
			t.Errorf("%d failures", at.Failures)
		}
	})
	t.Run("429 of all lanes is one, the longest counts", func(t *testing.T) {
		s, second, third := begin(t, askedFor(10*time.Second))
		s.Answered(second, askedFor(time.Minute), s.now)
		s.Answered(third, askedFor(time.Second), s.now)
		s.waits(store.WaitAsked, time.Minute)
		if at := s.Snapshot(s.now); at.Asked != 1 {
			t.Errorf("asked %d times", at.Asked)
		}
	})
	t.Run("what was asked for is not forgiven", func(t *testing.T) {
		s, second, third := begin(t, down())
		s.Answered(second, askedFor(time.Millisecond), s.now)
		s.waits(store.WaitAsked, time.Second)
		s.Answered(third, &delivery.Answer{Class: delivery.ClassEndpoint, Status: 502, RetryAfter: time.Hour, RetryAfterValid: true}, s.now)
		s.waits(store.WaitAsked, time.Hour)
		if s.Owes() {
			t.Error("a wait that was asked for is owed by failures")
		}
	})
	t.Run("a refusal is charged", func(t *testing.T) {
		s, second, _ := begin(t, down())
		s.Answered(second, refused(), s.now)
		s.waits(store.WaitEndpoint, time.Second)
		if at := s.Snapshot(s.now); len(at.Failing) != 1 || at.Failing[0].Sequence != 2 || at.Failures != 1 || at.EventAttempt != 0 {
			t.Errorf("%+v", at)
		}
	})
	t.Run("410 disables, and a wait stays", func(t *testing.T) {
		s, second, third := begin(t, askedFor(time.Hour))
		s.Answered(second, status(delivery.ClassGone, 410), s.now)
		s.Answered(third, status(delivery.ClassCanceled, 0), s.now)
		s.waits(store.WaitAsked, time.Hour)
		if !s.Disabled() {
			t.Error("it goes on")
		}
	})
	t.Run("a halt waits as well", func(t *testing.T) {
		s, second, _ := begin(t, status(delivery.ClassGone, 410))
		s.Answered(second, askedFor(time.Hour), s.now)
		s.waits(store.WaitAsked, time.Hour)
	})
	t.Run("forgiven", func(t *testing.T) {
		s, _, _ := begin(t, down())
		if !s.Owes() {
			t.Error("nothing is owed")
		}
		s.Forgive()
		if at := s.Snapshot(s.now); at.Wait != nil || at.Failures != 0 || !at.FailingSince.IsZero() {
			t.Errorf("%+v", at)
		}
	})
}

// TestWindow tells how many events are looked at ahead.
func TestWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		lanes, batch event.Count
		room         int
	}{{1, 1, 500}, {64, 1, 500}, {64, 100, 12800}, {10, 1000, 20000}} {
		p := New(testConfig(test.lanes, test.batch, event.OnExhaustedHold), State{}, time.Time{})
		if p.Room() != test.room {
			t.Errorf("room for %d with %v lanes of %v, want %d", p.Room(), test.lanes, test.batch, test.room)
		}
	}
	// One event that fails takes the room of one.
	s := tell(t, testConfig(2, 1, event.OnExhaustedHalt), eventsFrom(1, distinct(300)...))
	s.Answered(s.sends(1), refused(), s.now)
	for n := int64(2); n <= 300; n++ {
		s.Answered(s.sends(n), accepted(), s.now)
	}
	if s.Room() != 499 || s.Bytes() != s.log[0].Size() {
		t.Errorf("room for %d, %d bytes", s.Room(), s.Bytes())
	}
	s.position(0, 2, 300)
	if n := len(s.window.list); n > 100 {
		t.Errorf("%d entries are kept for one event", n)
	}
}

// TestSettledAbove takes up a position with ranges.
func TestSettledAbove(t *testing.T) {
	t.Parallel()
	state := State{Stream: Stream{Cursor: 2, Previous: 2, Settled: []int64{3, 3, 5, 8, 12, 20}, Scanned: 20, EventAttempt: 2}}
	p := New(testConfig(1, 5, event.OnExhaustedHalt), state, time.Time{})
	if got := []int64{p.SkipTo(3), p.SkipTo(4), p.SkipTo(6), p.SkipTo(9), p.SkipTo(11), p.SkipTo(30)}; got[0] != 3 || got[1] != 8 || got[2] != 8 || got[3] != 9 || got[4] != 20 || got[5] != 30 {
		t.Errorf("skips to %v", got)
	}
	if at := p.Snapshot(time.Time{}); at.Cursor != 3 || at.Previous != 3 || at.EventAttempt != 0 || len(at.Settled) != 4 || at.Scanned != 20 {
		t.Errorf("%+v", at) // 3 was skipped by a person: its attempts are not those of 4
	}
	p.Offer(eventsFrom(4, distinct(18)...), nil, 21) // 4 to 21
	r := p.Next(time.Time{})
	if got := sequencesOf(r.Events); len(got) != 5 || got[0] != 4 || got[1] != 9 || got[4] != 21 {
		t.Fatalf("sends %v", got)
	}
	if r.Previous != 3 || r.NoPrevious || r.Contiguous {
		t.Errorf("%+v", r)
	}
	p.Answered(r, accepted(), time.Time{})
	if at := p.Snapshot(time.Time{}); at.Cursor != 21 || at.Previous != 21 || at.Settled != nil {
		t.Errorf("%+v", at)
	}
}

// TestCompacted counts what was left out, and keeps it from coming later.
func TestCompacted(t *testing.T) {
	t.Parallel()
	p := New(testConfig(2, 2, event.OnExhaustedHalt), State{}, time.Time{})
	log := eventsFrom(1, "x", "a", "x", "a", "b")
	p.Offer([]*event.Event{log[2], log[3], log[4]}, []int{1, 1, 0}, 5) // 3, 4 and 5
	first := p.Next(time.Time{})
	second := p.Next(time.Time{})
	if first.Compacted != 2 || second.Compacted != 0 || first.Contiguous || !second.Contiguous {
		t.Errorf("%+v, %+v", first, second)
	}
	p.Answered(second, accepted(), time.Time{})
	if at := p.Snapshot(time.Time{}); at.Cursor != 2 || at.Settled[0] != 5 {
		t.Errorf("cursor %d, settled %v", at.Cursor, at.Settled)
	}
}
