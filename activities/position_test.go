package activities

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// ladder is a schedule whose steps tell themselves apart.
var ladder = []event.Duration{event.Duration(time.Second), event.Duration(2 * time.Second), event.Duration(4 * time.Second)}

func testPosition(batchSize int) *position {
	sub := event.Subscriber{BatchSize: event.Count(batchSize), Retry: event.Retry{
		Schedule: ladder, GiveUpAfter: event.Duration(time.Minute), EventAttempts: 3, MaxRetryAfter: event.Day,
	}}
	p := newPosition(&store.Run{}, &sub, time.Time{})
	p.jitter = func() float64 { return 0 }
	return p
}

func eventsFrom(first, last int64) []*event.Event {
	var list []*event.Event
	for n := first; n <= last; n++ {
		list = append(list, &event.Event{Sequence: n, ResourceName: "Property", ResourceRecordKey: fmt.Sprint(n)})
	}
	return list
}

func status(class delivery.Class, code int) *delivery.Answer {
	return &delivery.Answer{Class: class, Status: code}
}

func askedFor(d time.Duration) *delivery.Answer {
	return &delivery.Answer{Class: delivery.ClassAsked, Status: 429, RetryAfter: d, RetryAfterValid: true}
}

func waited(p *position, now time.Time) time.Duration {
	if p.wait == nil {
		return 0
	}
	return p.wait.until.Sub(now)
}

func TestPositionAnswers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := map[string]struct {
		batch    int
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
		"success settles":                       {1, []*delivery.Answer{status(delivery.ClassSuccess, 200)}, 0, "", 0, 0, 0, 1, 1, false, false},
		"410 disables":                          {1, []*delivery.Answer{status(delivery.ClassGone, 410)}, 0, "", 0, 0, 0, 1, 0, false, true},
		"asked costs no attempt":                {1, []*delivery.Answer{askedFor(time.Minute)}, time.Minute, store.WaitAsked, 0, 0, 1, 1, 0, false, false},
		"asked for nothing waits a second":      {1, []*delivery.Answer{askedFor(0)}, time.Second, store.WaitAsked, 0, 0, 1, 1, 0, false, false},
		"endpoint failures climb the schedule":  {1, repeat(status(delivery.ClassEndpoint, 502), 2), 2 * time.Second, store.WaitEndpoint, 0, 2, 0, 1, 0, false, false},
		"the last step repeats":                 {1, repeat(status(delivery.ClassEndpoint, 0), 9), 4 * time.Second, store.WaitEndpoint, 0, 9, 0, 1, 0, false, false},
		"Retry-After lengthens a failure":       {1, []*delivery.Answer{{Class: delivery.ClassEndpoint, Status: 502, RetryAfter: time.Hour, RetryAfterValid: true}}, time.Hour, store.WaitEndpoint, 0, 1, 0, 1, 0, false, false},
		"Retry-After does not shorten one":      {1, []*delivery.Answer{{Class: delivery.ClassRecord, Status: 500, RetryAfter: 1, RetryAfterValid: true}}, time.Second, store.WaitRecord, 1, 0, 0, 1, 0, false, false},
		"a refused event is charged":            {1, repeat(status(delivery.ClassRecord, 422), 2), 2 * time.Second, store.WaitRecord, 2, 0, 0, 1, 0, false, false},
		"and halts at its last attempt":         {1, repeat(status(delivery.ClassRecord, 422), 3), 0, "", 3, 0, 0, 1, 0, true, false},
		"a refused batch is halved, no wait":    {100, []*delivery.Answer{status(delivery.ClassRecord, 500)}, 0, "", 0, 0, 0, 50, 0, false, false},
		"a failing endpoint charges no batch":   {100, []*delivery.Answer{status(delivery.ClassEndpoint, 503)}, time.Second, store.WaitEndpoint, 0, 1, 0, 1, 0, false, false},
		"an answer breaks an endpoint's streak": {1, []*delivery.Answer{status(delivery.ClassEndpoint, 502), status(delivery.ClassRecord, 422)}, time.Second, store.WaitRecord, 1, 0, 0, 1, 0, false, false},
		"waits asked for stay patient thrice":   {1, repeat(askedFor(time.Second), 3), time.Second, store.WaitAsked, 0, 0, 3, 1, 0, false, false},
		"then the schedule counts as well":      {1, repeat(askedFor(time.Second), 6), 4 * time.Second, store.WaitAsked, 0, 0, 6, 1, 0, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testPosition(test.batch)
			for _, a := range test.answers {
				p.wait = nil
				p.answered(eventsFrom(1, int64(test.batch)), a, now)
			}
			if got := waited(p, now); got != test.wait {
				t.Errorf("waits %v, want %v", got, test.wait)
			}
			if p.wait != nil && p.wait.class != test.class {
				t.Errorf("waits as %q, want %q", p.wait.class, test.class)
			}
			got := []any{p.eventAttempt, p.failures, p.asked, p.limit(), p.cursor, p.halted != "", p.disabled}
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

// TestPositionHalving drives a batch of 100 with one poisoned event through a
// consumer that refuses every request it is in.
func TestPositionHalving(t *testing.T) {
	t.Parallel()
	for poisoned := int64(1); poisoned <= 100; poisoned++ {
		p := testPosition(100)
		requests := map[int64]int{}
		now := time.Now()
		for p.halted == "" && p.cursor < 200 {
			p.wait = nil
			events := eventsFrom(p.cursor+1, min(p.cursor+int64(p.limit()), 200))
			answer := status(delivery.ClassSuccess, 200)
			for _, e := range events {
				requests[e.Sequence]++
				if e.Sequence == poisoned {
					answer = status(delivery.ClassRecord, 422)
				}
			}
			p.answered(events, answer, now)
		}
		if p.cursor != poisoned-1 || p.eventAttempt != 3 {
			t.Fatalf("event %d poisoned: stopped behind %d after %d attempts", poisoned, p.cursor, p.eventAttempt)
		}
		for sequence, n := range requests {
			if sequence != poisoned && n > 10 {
				t.Errorf("event %d poisoned: good event %d was in %d requests", poisoned, sequence, n)
			}
		}
	}
}

func TestPositionAcceptedThrough(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := map[string]struct {
		answer  delivery.Answer
		settled int
		halved  int
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
			p := testPosition(10)
			p.eventAttempt = 2
			settled := p.answered(eventsFrom(1, 10), &test.answer, now)
			if settled != test.settled || p.cursor != int64(test.settled) || p.previous != p.cursor {
				t.Errorf("settled %d, cursor %d, previous %d, want %d", settled, p.cursor, p.previous, test.settled)
			}
			if p.limit() != test.halved || p.asked != test.asked || p.eventAttempt != 0 {
				t.Errorf("limit %d, asked %d, attempts %d", p.limit(), p.asked, p.eventAttempt)
			}
		})
	}
}

func TestPositionGivesUp(t *testing.T) {
	t.Parallel()
	p := testPosition(1)
	start := time.Now()
	for at := time.Duration(0); at < time.Minute; at += 4 * time.Second {
		p.wait = nil
		p.answered(eventsFrom(1, 1), status(delivery.ClassEndpoint, 503), start.Add(at))
		if p.halted != "" {
			t.Fatalf("gave up after %v", at)
		}
	}
	p.answered(eventsFrom(1, 1), status(delivery.ClassEndpoint, 503), start.Add(time.Minute))
	if p.halted == "" || p.eventAttempt != 0 || p.wait != nil {
		t.Errorf("after giveUpAfter: halted %q, attempts %d, wait %v", p.halted, p.eventAttempt, p.wait)
	}
}

// TestPositionSurvivesCheckpoint shows that a rebuilt run goes on as the one
// before it: nothing of the state is lost on the way through the row.
func TestPositionSurvivesCheckpoint(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := testPosition(100)
	p.starting(1, 100)
	p.answered(eventsFrom(1, 100), status(delivery.ClassRecord, 500), now)
	p.starting(1, 50)
	p.answered(eventsFrom(1, 50), status(delivery.ClassEndpoint, 502), now)
	c := p.checkpoint(now)
	since := now
	row := store.Run{
		Cursor: c.Cursor, PreviousSequence: c.PreviousSequence, FailingSince: &since, Failures: c.Failures, Asked: c.Asked,
		EventAttempt: c.EventAttempt, RangeFirst: c.RangeFirst, RangeLast: c.RangeLast, RangeAttempt: c.RangeAttempt,
		Probe: c.Probe, BatchLimit: c.BatchLimit, LastError: &c.LastError, Now: now,
	}
	sub := event.Subscriber{BatchSize: 100, Retry: p.policy}
	rebuilt := newPosition(&row, &sub, now)
	again := rebuilt.checkpoint(now)
	c.Wait, c.WaitClass, c.WaitReason = 0, "", "" // a run starts after the wait
	if diff := cmp.Diff(c, again); diff != "" {
		t.Errorf("rebuilt (-before +after):\n%s", diff)
	}
	if rebuilt.limit() != 1 || rebuilt.starting(1, 50) != 2 {
		t.Error("the first request after a wait is not a probe, or its attempts were forgotten")
	}
}

func TestUnsaved(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var u unsaved
	u.settled(1, at(0))
	u.settled(1, at(10))
	first := u.submitted()
	u.settled(1, at(20))
	second := u.submitted()
	u.settled(1, at(30))
	if u.count() != 4 || u.age(at(40)) != 40*time.Millisecond {
		t.Errorf("before a commit: %d, oldest %v", u.count(), u.age(at(40)))
	}
	u.committed(first)
	if u.count() != 2 || u.age(at(40)) != 20*time.Millisecond {
		t.Errorf("after the first: %d, oldest %v", u.count(), u.age(at(40)))
	}
	u.committed(second)
	if u.count() != 1 || u.age(at(40)) != 10*time.Millisecond {
		t.Errorf("after the second: %d, oldest %v", u.count(), u.age(at(40)))
	}
	u.committed(u.submitted())
	if u.count() != 0 || u.age(at(40)) != 0 {
		t.Errorf("after all: %d, oldest %v", u.count(), u.age(at(40)))
	}
}

// TestFewUnsaved holds the gate's second condition to its two bounds.
func TestFewUnsaved(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := &run{a: New(Config{UnsavedEvents: 500, UnsavedAge: 200 * time.Millisecond})}
	few := func(n int, age time.Duration) bool { return r.fewUnsaved(n, began.Add(age)) }
	if !few(1000, time.Hour) {
		t.Error("nothing is unsaved, but a large request may not start")
	}
	r.unsaved.settled(499, began)
	for _, test := range []struct {
		n    int
		age  time.Duration
		want bool
	}{
		{1, 0, true}, {2, 0, false}, {1, 200*time.Millisecond - 1, true}, {1, 200 * time.Millisecond, false},
	} {
		if got := few(test.n, test.age); got != test.want {
			t.Errorf("a request of %d, after %v: %v, want %v", test.n, test.age, got, test.want)
		}
	}
}
