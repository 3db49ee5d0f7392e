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

// TestAnswers is what each class of answer does to a subscriber of one lane.
func TestAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		batch    event.Count
		answers  []*delivery.Answer
		wait     time.Duration
		class    string
		attempts int // event_attempt after
		failures int
		asked    int
		limit    int
		cursor   int64
		halted   bool
		disabled bool
	}{
		"success settles":                       {1, []*delivery.Answer{accepted()}, 0, "", 0, 0, 0, 1, 1, false, false},
		"410 disables":                          {1, []*delivery.Answer{status(delivery.ClassGone, 410)}, 0, "", 0, 0, 0, 1, 0, false, true},
		"asked costs no attempt":                {1, []*delivery.Answer{askedFor(time.Minute)}, time.Minute, store.WaitAsked, 0, 0, 1, 1, 0, false, false},
		"asked for nothing waits a second":      {1, []*delivery.Answer{askedFor(0)}, time.Second, store.WaitAsked, 0, 0, 1, 1, 0, false, false},
		"endpoint failures climb the schedule":  {1, repeat(down(), 2), 2 * time.Second, store.WaitEndpoint, 0, 2, 0, 1, 0, false, false},
		"the last step repeats":                 {1, repeat(status(delivery.ClassEndpoint, 0), 9), 4 * time.Second, store.WaitEndpoint, 0, 9, 0, 1, 0, false, false},
		"Retry-After lengthens a failure":       {1, []*delivery.Answer{{Class: delivery.ClassEndpoint, Status: 502, RetryAfter: time.Hour, RetryAfterValid: true}}, time.Hour, store.WaitEndpoint, 0, 1, 0, 1, 0, false, false},
		"Retry-After does not shorten one":      {1, []*delivery.Answer{{Class: delivery.ClassRecord, Status: 500, RetryAfter: 1, RetryAfterValid: true}}, time.Second, store.WaitRecord, 1, 0, 0, 1, 0, false, false},
		"Retry-After lengthens a refusal":       {1, []*delivery.Answer{{Class: delivery.ClassRecord, Status: 500, RetryAfter: time.Hour, RetryAfterValid: true}}, time.Hour, store.WaitRecord, 1, 0, 0, 1, 0, false, false},
		"a refused event is charged":            {1, repeat(refused(), 2), 2 * time.Second, store.WaitRecord, 2, 0, 0, 1, 0, false, false},
		"and halts at its last attempt":         {1, repeat(refused(), 3), 0, "", 3, 0, 0, 1, 0, true, false},
		"a refused batch is halved, no wait":    {100, []*delivery.Answer{status(delivery.ClassRecord, 500)}, 0, "", 0, 0, 0, 50, 0, false, false},
		"a failing endpoint charges no batch":   {100, []*delivery.Answer{down()}, time.Second, store.WaitEndpoint, 0, 1, 0, 1, 0, false, false},
		"an answer breaks an endpoint's streak": {1, []*delivery.Answer{down(), refused()}, time.Second, store.WaitRecord, 1, 0, 0, 1, 0, false, false},
		"waits asked for stay patient thrice":   {1, repeat(askedFor(time.Second), 3), time.Second, store.WaitAsked, 0, 0, 3, 1, 0, false, false},
		"then the schedule counts as well":      {1, repeat(askedFor(time.Second), 6), 4 * time.Second, store.WaitAsked, 0, 0, 6, 1, 0, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, testConfig(1, test.batch, event.OnExhaustedHalt), eventsFrom(1, distinct(int(test.batch)+1)...))
			for i, a := range test.answers {
				if i > 0 {
					s.again(0)
				}
				s.Answered(s.Next(s.now), a, s.now)
			}
			if test.class != "" {
				s.waits(test.class, test.wait)
			} else if s.Wait() != nil {
				t.Errorf("waits %+v", s.Wait())
			}
			at := s.Snapshot(s.now)
			got := []any{at.EventAttempt, at.Failures, at.Asked, s.limit(), at.Cursor, s.Halted() != "", s.Disabled()}
			want := []any{test.attempts, test.failures, test.asked, test.limit, test.cursor, test.halted, test.disabled}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("event_attempt, failures, asked, limit, cursor, halted, disabled (-want +got):\n%s", diff)
			}
		})
	}
}

func repeat(a *delivery.Answer, n int) []*delivery.Answer {
	list := make([]*delivery.Answer, n)
	for i := range list {
		list[i] = a
	}
	return list
}

// TestHalving drives a batch of 100 with one poisoned event through a consumer
// that refuses every request it is in, in one lane and in several.
func TestHalving(t *testing.T) {
	t.Parallel()
	for _, lanes := range []event.Count{1, 4} {
		for poisoned := int64(1); poisoned <= 100; poisoned++ {
			s := tell(t, testConfig(lanes, 100, event.OnExhaustedHalt), eventsFrom(1, distinct(200)...))
			requests := map[int64]int{}
			for s.Halted() == "" {
				r := s.Next(s.now)
				if r == nil {
					due, _ := s.Due(s.now)
					s.again(due.Sub(s.now))
					continue
				}
				answer := accepted()
				for _, e := range r.Events {
					requests[e.Sequence]++
					if e.Sequence == poisoned {
						answer = refused()
					}
				}
				s.Answered(r, answer, s.now)
			}
			if at := s.Snapshot(s.now); at.Cursor != poisoned-1 || at.EventAttempt != 3 || at.HaltedEvent != poisoned {
				t.Fatalf("event %d poisoned: stopped behind %d at %d after %d attempts", poisoned, at.Cursor, at.HaltedEvent, at.EventAttempt)
			}
			for sequence, n := range requests {
				if sequence != poisoned && n > 10 {
					t.Errorf("%d lanes, event %d poisoned: good event %d was in %d requests", lanes, poisoned, sequence, n)
				}
			}
		}
	}
}

func TestAcceptedThrough(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer  delivery.Answer
		settled int
		limit   int
		asked   int
	}{
		"the rest is judged by the status": {delivery.Answer{Class: delivery.ClassRecord, Status: 500, AcceptedThrough: 4}, 4, 3, 0},
		"all accepted under an error":      {delivery.Answer{Class: delivery.ClassRecord, Status: 500, AcceptedThrough: 10}, 10, 10, 0},
		"2xx settles everything":           {delivery.Answer{Class: delivery.ClassSuccess, Status: 200, AcceptedThrough: 4}, 10, 10, 0},
		"a wait still holds":               {delivery.Answer{Class: delivery.ClassAsked, Status: 429, RetryAfter: time.Minute, RetryAfterValid: true, AcceptedThrough: 4}, 4, 1, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, testConfig(1, 10, event.OnExhaustedHalt), eventsFrom(1, distinct(20)...))
			settled := s.Answered(s.sends(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), &test.answer, s.now)
			at := s.Snapshot(s.now)
			if settled != test.settled || at.Cursor != int64(test.settled) || at.Previous != at.Cursor {
				t.Errorf("settled %d, cursor %d, previous %d, want %d", settled, at.Cursor, at.Previous, test.settled)
			}
			if s.limit() != test.limit || at.Asked != test.asked || at.EventAttempt != 0 {
				t.Errorf("limit %d, asked %d, attempts %d", s.limit(), at.Asked, at.EventAttempt)
			}
		})
	}
}

func TestGivesUp(t *testing.T) {
	t.Parallel()
	s := tell(t, testConfig(1, 1, event.OnExhaustedHold), eventsFrom(1, "a"))
	began := s.now
	for s.Halted() == "" {
		s.Answered(s.sends(1), down(), s.now)
		if passed := s.now.Sub(began); (s.Halted() != "") != (passed >= time.Minute) {
			t.Fatalf("after %v: %q", passed, s.Halted())
		}
		if s.Halted() == "" {
			s.again(0)
		}
	}
	if at := s.Snapshot(s.now); at.EventAttempt != 0 || at.Wait != nil || at.Aside != nil || at.HaltedEvent != 0 || !strings.HasPrefix(at.Halted, "the endpoint failed for 1m") {
		t.Errorf("%+v", at)
	}
}

// TestReasons pins what people are told.
func TestReasons(t *testing.T) {
	t.Parallel()
	s := tell(t, testConfig(1, 1, event.OnExhaustedHalt), eventsFrom(1, "a"))
	for attempt := 1; attempt < 3; attempt++ {
		s.Answered(s.sends(1), refused(), s.now)
		want := fmt.Sprintf("event 1 was refused with HTTP 422 from the consumer (attempt %d of 3)", attempt)
		if got := s.Wait().Reason; got != want {
			t.Errorf("waits as %q, want %q", got, want)
		}
		s.again(0)
	}
	s.Answered(s.sends(1), refused(), s.now)
	if want := "event 1 (Property) was refused 3 times, last answer HTTP 422 from the consumer"; s.Halted() != want {
		t.Errorf("halted as %q, want %q", s.Halted(), want)
	}
}

// TestSurvivesCheckpoint shows that a rebuilt run goes on as the one before it:
// nothing of the state is lost on the way through the row.
func TestSurvivesCheckpoint(t *testing.T) {
	t.Parallel()
	s := tell(t, testConfig(1, 100, event.OnExhaustedHalt), eventsFrom(1, distinct(200)...))
	s.Answered(s.Next(s.now), status(delivery.ClassRecord, 500), s.now)
	s.Answered(s.Next(s.now), down(), s.now)
	before := s.Snapshot(s.now)
	s.again(0)
	after := s.Snapshot(s.now)
	before.Wait, before.Mark, before.Taken = nil, after.Mark, after.Taken // a run starts after the wait
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("rebuilt (-before +after):\n%s", diff)
	}
	s.sends(1)
	t.Run("attempts of a range", func(t *testing.T) {
		s := tell(t, testConfig(1, 2, event.OnExhaustedHalt), eventsFrom(1, distinct(2)...))
		for want := 1; want <= 3; want++ {
			r := s.sends(1, 2)
			if r.Attempt != want {
				t.Errorf("attempt %d, want %d", r.Attempt, want)
			}
			s.again(time.Second) // it crashed while that was in flight
		}
	})
	t.Run("an older binary's row", func(t *testing.T) {
		s := tell(t, testConfig(1, 1, event.OnExhaustedHalt), eventsFrom(1, "a"))
		s.Answered(s.sends(1), refused(), s.now)
		s.again(0, func(_ *Config, state *State) { state.Stream.Failing = nil })
		s.Answered(s.sends(1), refused(), s.now)
		s.waits(store.WaitRecord, 2*time.Second)
	})
	t.Run("a resume begins anew", func(t *testing.T) {
		s := tell(t, testConfig(1, 1, event.OnExhaustedHalt), eventsFrom(1, "a"))
		for range 3 {
			s.Answered(s.sends(1), refused(), s.now)
			s.again(0, func(_ *Config, state *State) {
				if state.EventAttempt == 3 {
					state.EventAttempt = 0
				}
			})
		}
		s.Answered(s.sends(1), refused(), s.now)
		s.waits(store.WaitRecord, time.Second)
	})
}
