package planner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// exhaust has the event refused for as often as it may be, in runs of their own.
func (s *story) exhaust(sequence int64) {
	s.t.Helper()
	for attempt := 1; attempt <= 3; attempt++ {
		s.Answered(s.sends(sequence), refused(), s.now)
		if attempt < 3 {
			s.again(0)
		}
	}
}

// aside are the changes of a snapshot.
func (s *story) changes() *store.AsideChanges { return s.Snapshot(s.now).Aside }

func (s *story) wantChanges(want *store.AsideChanges) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.changes()); diff != "" {
		s.t.Fatalf("what is set aside (-want +got):\n%s", diff)
	}
}

// TestTrial is the rule that nothing is set aside before an event of another key
// was accepted.
func TestTrial(t *testing.T) {
	t.Parallel()
	dead := store.DeadLetter{
		Sequence: 1, Key: key("a"), Reason: store.DeadExhausted, Attempts: 3, LastStatus: 422, LastError: "HTTP 422 from the consumer",
	}
	t.Run("accepted: settled and set aside at once", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(1, 1, event.OnExhaustedSkip), eventsFrom(1, "a", "a", "b", "c"))
		s.exhaust(1)
		s.position(0)
		s.wantChanges(nil)
		if n := s.Answered(s.sends(3), accepted(), s.now); n != 2 {
			t.Errorf("%d events dealt with", n)
		}
		s.position(1, 3, 3)
		s.wantChanges(&store.AsideChanges{Dead: []store.DeadLetter{dead}})
		s.sends(2)
	})
	t.Run("refused: nothing is set aside, nothing charged", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(1, 1, event.OnExhaustedSkip), eventsFrom(1, "a", "a", "b", "c"))
		s.exhaust(1)
		s.Answered(s.sends(3), refused(), s.now)
		s.waits(store.WaitRecord, 4*time.Second)
		if at := s.Snapshot(s.now); len(at.Failing) != 1 || at.Failing[0].Attempts != 3 || at.Aside != nil {
			t.Errorf("%+v", at)
		}
		s.again(0)
		s.Answered(s.sends(1), refused(), s.now)
		if got := s.Wait(); got != nil {
			t.Errorf("no trial after the next refusal: %+v", got)
		}
		s.sends(3)
	})
	t.Run("the endpoint fails: the failed one keeps its step", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, "a", "b"))
		s.exhaust(1)
		s.Answered(s.sends(2), down(), s.now)
		s.waits(store.WaitEndpoint, 4*time.Second) // not 1 s: nothing could be sent
		s.again(0)
		s.sends(1)
	})
	t.Run("nothing to try, for now", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, "a", "a"))
		s.exhaust(1)
		s.sendsNothing()
		if s.Stopped() || s.Room() != trialWindow-2 || !s.Idle() {
			t.Fatalf("stopped %v, room %d", s.Stopped(), s.Room())
		}
		s.NothingMore(s.now)
		s.waits(store.WaitRecord, 4*time.Second)
		if want := "event 1 was refused with HTTP 422 from the consumer (attempt 3; no other record was accepted since)"; s.Wait().Reason != want {
			t.Errorf("waits as %q", s.Wait().Reason)
		}
	})
	t.Run("no further than a thousand events on", func(t *testing.T) {
		t.Parallel()
		log := make([]string, trialWindow+1)
		for i := range log {
			log[i] = "a"
		}
		log[trialWindow] = "b"
		s := tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, log[:trialWindow]...))
		s.exhaust(1)
		s.waits(store.WaitRecord, 4*time.Second)
		log[trialWindow-1] = "b"
		s = tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, log[:trialWindow]...))
		s.exhaust(1)
		s.sends(trialWindow)
	})
	t.Run("a crash before it does not cost a step", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, "a", "b"))
		s.exhaust(1)
		s.again(time.Second, func(_ *Config, state *State) { state.Probe = false })
		s.sends(2)
	})
	t.Run("other lanes prove it", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 1, event.OnExhaustedSkip), eventsFrom(1, "a", "b", "c", "d", "e", "f"))
		for n := int64(1); n < 3; n++ {
			s.Answered(s.sends(1), refused(), s.now)
			s.now = s.now.Add(time.Duration(n) * time.Second)
		}
		failed := s.sends(1)
		other := s.sends(2)
		s.Answered(failed, refused(), s.now)
		s.wantChanges(nil)
		s.Answered(other, accepted(), s.now)
		s.wantChanges(&store.AsideChanges{Dead: []store.DeadLetter{dead}})
		s.position(2)
	})
	t.Run("what was accepted before does not count, what comes between does", func(t *testing.T) {
		t.Parallel()
		s := tell(t, testConfig(2, 1, event.OnExhaustedSkip), eventsFrom(1, "b", "a", "c"))
		s.Answered(s.sends(1), accepted(), s.now)
		s.Answered(s.sends(2), refused(), s.now)
		if at := s.Snapshot(s.now); at.Failing[0].Proven {
			t.Error("proven by what came before")
		}
		s.Answered(s.sends(3), accepted(), s.now)
		if at := s.Snapshot(s.now); !at.Failing[0].Proven {
			t.Error("not proven")
		}
		s.again(time.Second)
		s.Answered(s.sends(2), refused(), s.now)
		s.again(2 * time.Second)
		s.Answered(s.sends(2), refused(), s.now)
		dead := dead
		dead.Sequence = 2
		s.wantChanges(&store.AsideChanges{Dead: []store.DeadLetter{dead}})
	})
}

// TestHold is the way of a key into the held ones and out again.
func TestHold(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, keys ...string) *story {
		t.Helper()
		t.Parallel()
		s := tell(t, testConfig(1, 5, event.OnExhaustedHold), eventsFrom(1, keys...))
		s.Answered(s.Next(s.now), refused(), s.now)
		for s.limit() > 1 {
			s.Answered(s.Next(s.now), refused(), s.now)
		}
		s.exhaust(1)
		s.Answered(s.Next(s.now), accepted(), s.now)
		return s
	}
	held := func(sequences ...int64) (list []store.HeldEvent) {
		for _, n := range sequences {
			list = append(list, store.HeldEvent{Sequence: n, Key: key("a")})
		}
		return list
	}
	row := func(events, attempts int, wait time.Duration) []store.HeldKey {
		k := store.HeldKey{Key: key("a"), Events: events, Attempts: attempts, Wait: wait}
		if attempts > 0 {
			k.LastStatus, k.LastError = 422, "HTTP 422 from the consumer"
		}
		return []store.HeldKey{k}
	}
	t.Run("its events wait, the others go on", func(t *testing.T) {
		s := begin(t, "a", "a", "b", "a", "c")
		s.wantChanges(&store.AsideChanges{Hold: held(1, 2, 4), Keys: row(3, 3, 4*time.Second)})
		s.position(4)
		s.Offer(eventsFrom(6, "a", "d"), nil, 7)
		s.wantChanges(&store.AsideChanges{Hold: held(1, 2, 4, 6), Keys: row(4, 3, 4*time.Second)})
		s.Answered(s.sends(5, 7), accepted(), s.now)
		s.position(7)
		s.sendsNothing()
		if due, _ := s.Due(s.now); due != s.now.Add(4*time.Second) {
			t.Errorf("due %v", due)
		}
	})
	t.Run("tried along the schedule, then one after the other", func(t *testing.T) {
		s := begin(t, "a", "a", "b")
		s.now = s.now.Add(4 * time.Second)
		r := s.sends(1)
		if !r.NoPrevious || r.Attempt != 4 {
			t.Errorf("%+v", r)
		}
		s.Answered(r, refused(), s.now)
		if s.Stopped() {
			t.Error("a held event stopped the subscriber")
		}
		s.wantChanges(&store.AsideChanges{Hold: held(1, 2), Keys: row(2, 4, 4*time.Second)})
		s.now = s.now.Add(4 * time.Second)
		s.Answered(s.sends(1), accepted(), s.now)
		s.wantChanges(&store.AsideChanges{Hold: held(2), Unhold: []int64{1}, Keys: row(1, 0, 0)})
		s.Committed(s.Snapshot(s.now).Mark)
		s.wantChanges(nil)
		s.Answered(s.sends(2), accepted(), s.now)
		s.wantChanges(&store.AsideChanges{Unhold: []int64{2}, Release: []event.Key{key("a")}})
	})
	t.Run("what no committed checkpoint has stays", func(t *testing.T) {
		s := begin(t, "a", "a", "b")
		first := s.Snapshot(s.now) // submitted
		s.Offer(eventsFrom(4, "a"), nil, 4)
		second := s.Snapshot(s.now)
		s.Offer(eventsFrom(5, "a"), nil, 5)
		s.Committed(first.Mark)
		s.wantChanges(&store.AsideChanges{Hold: held(4, 5)})
		s.Committed(second.Mark)
		s.wantChanges(&store.AsideChanges{Hold: held(5)})
		s.Committed(first.Mark) // late
		s.wantChanges(&store.AsideChanges{Hold: held(5)})
		if s.Room() != 499 {
			t.Errorf("room for %d", s.Room())
		}
	})
	t.Run("the endpoint's failure is none of its own", func(t *testing.T) {
		s := begin(t, "a", "b")
		s.now = s.now.Add(4 * time.Second)
		s.Answered(s.sends(1), down(), s.now)
		s.waits(store.WaitEndpoint, time.Second)
		s.wantChanges(&store.AsideChanges{Hold: held(1), Keys: row(1, 3, 0)})
	})
}

// TestHeldRead takes up a held key whose events are in the row store.
func TestHeldRead(t *testing.T) {
	t.Parallel()
	s := tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, "b"))
	state := State{Stream: Stream{Cursor: 9, Previous: 9}, HeldEvents: 4, Held: []store.HeldKey{{Key: key("a"), Events: 4, Attempts: 3, Wait: time.Second}}}
	s.Plan = New(s.cfg, state, s.now)
	if _, ok := s.HeldWanted(s.now); ok {
		t.Error("wanted before it is due")
	}
	s.now = s.now.Add(time.Second)
	wanted := func() {
		t.Helper()
		if k, ok := s.HeldWanted(s.now); !ok || k != key("a") {
			t.Fatalf("wants %v, %v", k, ok)
		}
	}
	wanted()
	s.Offer(eventsFrom(10, "a"), nil, 10) // comes while the row store is read, is in what is read or not
	s.Committed(s.Snapshot(s.now).Mark)
	log := eventsFrom(1, "a", "a", "a", "a")
	s.OfferHeld(key("a"), log[:2], []int64{0, 7}, false)
	s.Answered(s.sends(1), accepted(), s.now)
	r := s.sends(2)
	if r.Replay != 7 {
		t.Errorf("replay %d", r.Replay)
	}
	s.Answered(r, accepted(), s.now)
	if got := s.changes(); len(got.Unhold) != 2 || len(got.Redelivered) != 1 || got.Redelivered[0] != 2 || len(got.Release) != 0 {
		t.Errorf("%+v", got)
	}
	if _, ok := s.HeldWanted(s.now); ok {
		t.Error("wanted before what was delivered is committed: it would be read again")
	}
	s.Committed(s.Snapshot(s.now).Mark)
	wanted()
	s.OfferHeld(key("a"), append(log[2:4:4], eventsFrom(10, "a")...), []int64{0, 0, 0}, true)
	for _, n := range []int64{3, 4, 10} {
		s.Answered(s.sends(n), accepted(), s.now)
	}
	if got := s.changes(); len(got.Release) != 1 || s.heldEvents != 0 {
		t.Errorf("%+v, %d held", got, s.heldEvents)
	}

	t.Run("it was empty from the start", func(t *testing.T) {
		s.Plan = New(s.cfg, State{Held: []store.HeldKey{{Key: key("a")}}}, s.now)
		if got := s.changes(); len(got.Release) != 1 {
			t.Errorf("%+v", got)
		}
		if _, ok := s.HeldWanted(s.now); ok {
			t.Error("it is wanted")
		}
	})
	t.Run("nothing waits any more", func(t *testing.T) {
		s.Plan = New(s.cfg, state, s.now)
		s.now = s.now.Add(time.Second)
		wanted()
		s.OfferHeld(key("a"), nil, nil, true)
		if got := s.changes(); len(got.Release) != 1 || s.heldEvents != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// TestHeldBounds is what happens where more would have to be held than may.
func TestHeldBounds(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, keysMax, eventsMax int, keys ...string) *story {
		t.Helper()
		t.Parallel()
		cfg := testConfig(1, 1, event.OnExhaustedHold)
		cfg.Retry.EventAttempts, cfg.HeldKeysMax, cfg.HeldEventsMax = 1, keysMax, eventsMax
		s := tell(t, cfg, eventsFrom(1, keys...))
		s.Answered(s.sends(1), refused(), s.now)
		return s
	}
	t.Run("keys", func(t *testing.T) {
		s := begin(t, 1, 10, "a", "b", "c")
		s.Answered(s.sends(2), accepted(), s.now)
		s.Answered(s.sends(3), refused(), s.now)
		s.Offer(eventsFrom(4, "d"), nil, 4)
		s.Answered(s.sends(4), accepted(), s.now)
		want := "event 3 (Property) was refused 1 times, and 1 keys are held already, the most there may be"
		if at := s.Snapshot(s.now); at.Halted != want || at.HaltedEvent != 3 || at.Cursor != 2 {
			t.Errorf("%q at %d, cursor %d", at.Halted, at.HaltedEvent, at.Cursor)
		}
	})
	t.Run("events at once", func(t *testing.T) {
		s := begin(t, 1, 2, "a", "a", "a", "b")
		s.Answered(s.sends(4), accepted(), s.now)
		if at := s.Snapshot(s.now); at.HaltedEvent != 1 || at.Cursor != 0 || at.Aside != nil {
			t.Errorf("%+v", at)
		}
	})
	t.Run("events later", func(t *testing.T) {
		s := begin(t, 1, 2, "a", "b")
		s.Answered(s.sends(2), accepted(), s.now)
		s.Offer(eventsFrom(3, "a", "a", "c"), nil, 5)
		if s.Stopped() {
			t.Error("halted before there was nothing else to do")
		}
		s.sendsNothing()
		if at := s.Snapshot(s.now); !strings.Contains(at.Halted, "2 held events are the most") || at.HaltedEvent != 4 || at.Cursor != 3 {
			t.Errorf("%q at %d, cursor %d", at.Halted, at.HaltedEvent, at.Cursor)
		}
	})
	t.Run("what is mended makes room before it halts", func(t *testing.T) {
		s := begin(t, 1, 2, "a", "a", "b")
		s.Answered(s.sends(3), accepted(), s.now)
		s.now = s.now.Add(time.Second) // due
		s.Offer(eventsFrom(4, "a", "c", "a"), nil, 6)
		for n := int64(1); n <= 2; n++ {
			s.Answered(s.sends(n), accepted(), s.now)
		}
		s.Answered(s.sends(4), accepted(), s.now)
		s.Answered(s.sends(6), accepted(), s.now)
		s.Answered(s.sends(5), accepted(), s.now)
		s.position(6)
		if s.Halted() != "" {
			t.Error(s.Halted())
		}
	})
}

// TestReplay is what differs where the events of a replay are sent.
func TestReplay(t *testing.T) {
	t.Parallel()
	cfg := testConfig(2, 1, event.OnExhaustedHold)
	cfg.Replay = 7
	s := tell(t, cfg, eventsFrom(1, "a"))
	state := State{Dead: []int64{2, 5, 9}, HeldEvents: 1, Held: []store.HeldKey{{Key: key("h"), Events: 1, Attempts: 3, Wait: time.Hour}}}
	s.Plan = New(cfg, state, s.now)
	s.Offer(eventsFrom(1, "a", "b", "h"), nil, 5)
	first, second := s.sends(1), s.sends(2)
	if first.Replay != 7 {
		t.Errorf("replay %d", first.Replay)
	}
	s.Answered(first, accepted(), s.now)
	s.Answered(second, accepted(), s.now)
	s.wantChanges(&store.AsideChanges{Hold: []store.HeldEvent{{Sequence: 3, Key: key("h"), Replay: 7}}, Redelivered: []int64{2}})
	s.position(5)
}

// TestDeadAgain replays a dead letter that is refused again: it stays one, as it
// loses nothing by it and there may be nothing else to try.
func TestDeadAgain(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{event.OnExhaustedHold, event.OnExhaustedSkip} {
		cfg := testConfig(1, 1, policy)
		cfg.Replay, cfg.Retry.EventAttempts = 7, 1
		s := tell(t, cfg, eventsFrom(1, "a"))
		s.Plan = New(cfg, State{Dead: []int64{1}}, s.now)
		s.Offer(s.log, nil, 1)
		s.Answered(s.sends(1), refused(), s.now)
		if got := s.changes(); got == nil || len(got.Dead) != 1 || len(got.Hold) != 0 {
			t.Errorf("%s: %+v", policy, got)
		}
		s.position(1)
	}
}

// TestAuto shows what is learned, and what is not.
func TestAuto(t *testing.T) {
	t.Parallel()
	const requests = 3000
	begin := func(t *testing.T, lanes, batch event.Count, answer func(n, inFlight int) (time.Duration, int)) (int, int) {
		t.Helper()
		t.Parallel()
		p := New(testConfig(lanes, batch, event.OnExhaustedHalt), State{}, time.Time{})
		next := int64(1)
		var flying []*Request
		for range requests {
			keys := make([]string, p.Room())
			for i := range keys {
				keys[i] = fmt.Sprint(next + int64(i))
			}
			p.Offer(eventsFrom(next, keys...), nil, next+int64(len(keys))-1)
			next += int64(len(keys))
			for r := p.Next(time.Time{}); r != nil; r = p.Next(time.Time{}) {
				flying = append(flying, r)
			}
			took, code := answer(len(flying[0].Events), len(flying))
			a := &delivery.Answer{Class: delivery.Classify(code, false), Status: code, Duration: took}
			p.Answered(flying[0], a, time.Time{})
			flying = flying[1:]
		}
		at := p.Snapshot(time.Time{})
		if again := New(testConfig(lanes, batch, event.OnExhaustedHalt), State{LearnedBatch: at.LearnedBatch, LearnedLanes: at.LearnedLanes}, time.Time{}); again.lanes != p.lanes || again.batch() != p.batch() {
			t.Errorf("taken up with %d lanes of %d, not %d of %d", again.lanes, again.batch(), p.lanes, p.batch())
		}
		return at.LearnedLanes, at.LearnedBatch
	}
	quick := func(int, int) (time.Duration, int) { return time.Millisecond, 200 }
	t.Run("nothing is asked", func(t *testing.T) {
		if lanes, batch := begin(t, 4, 10, quick); lanes != 0 || batch != 0 {
			t.Errorf("%d lanes of %d", lanes, batch)
		}
	})
	t.Run("all is well", func(t *testing.T) {
		if lanes, batch := begin(t, event.Auto, event.Auto, quick); lanes*batch > inFlightMax || lanes < 8 || batch < 100 {
			t.Errorf("%d lanes of %d", lanes, batch)
		}
	})
	t.Run("too large", func(t *testing.T) {
		lanes, batch := begin(t, 2, event.Auto, func(n, _ int) (time.Duration, int) {
			if n > 70 {
				return time.Millisecond, 413
			}
			return time.Millisecond, 200
		})
		if lanes != 0 || batch < 35 || batch > 75 {
			t.Errorf("%d lanes of %d", lanes, batch)
		}
	})
	t.Run("slow by the event", func(t *testing.T) {
		_, batch := begin(t, 1, event.Auto, func(n, _ int) (time.Duration, int) { return time.Duration(n) * 10 * time.Millisecond, 200 })
		if batch < 64 || batch > 220 {
			t.Errorf("batches of %d at 10 ms an event", batch)
		}
	})
	t.Run("eight at a time", func(t *testing.T) {
		lanes, _ := begin(t, event.Auto, 1, func(_, inFlight int) (time.Duration, int) {
			return 20 * time.Millisecond * time.Duration(max(8, inFlight)) / 8, 200
		})
		if lanes < 8 || lanes > 24 {
			t.Errorf("%d lanes", lanes)
		}
	})
}
