package activities_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// atOnce is the most requests that were unanswered at once.
func atOnce(requests []testkit.Request) (most int) {
	for _, r := range requests {
		n := 0
		for _, other := range requests {
			if !other.At.After(r.At) && other.At.Add(other.Took).After(r.At) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// TestLanesChanged changes the lanes while events fail: each keeps its order, and
// none comes twice.
func TestLanesChanged(t *testing.T) {
	t.Parallel()
	const n, keys = 1500, 60
	b, p := setup(t), newPicky(t, 500, "5", "6", "7")
	p.slow.Store(int64(5 * time.Millisecond))
	b.publish(spread(500, keys)...)
	b.publish(spread(500, keys)...)
	b.publish(spread(500, keys)...)
	b.create(p.URL(), func(s *event.Subscriber) {
		s.Lanes, s.Retry.EventAttempts = 16, 100
		s.Retry.Schedule = []event.Duration{event.Duration(100 * time.Millisecond)}
	})
	b.followAll("acme")
	lanes := func(n event.Count) (since int) {
		version := b.configure(func(s *event.Subscriber, _ *event.Secrets) { s.Lanes = n }).Version
		b.wantInForce(version)
		testkit.Eventually(t, waitMax, func() bool { return b.row().InFlight <= int(n) && p.InFlight() <= int(n) }, "what was in flight has ended")
		return p.Count()
	}
	p.WaitAnswered(t, 200, waitMax)
	testkit.Eventually(t, waitMax, func() bool { return len(b.row().FailingEvents) == 3 }, "three events fail in lanes of their own")
	before := b.row()

	one := lanes(1)
	p.WaitAnswered(t, one+10, waitMax)
	row := b.row()
	if len(row.FailingEvents) != 1 || row.FailingEvents[0].Sequence != before.FailingEvents[0].Sequence || row.FailingEvents[0].Attempts <= before.FailingEvents[0].Attempts {
		t.Errorf("in one lane %+v fail, before %+v", row.FailingEvents, before.FailingEvents)
	}
	p.mend("5")
	p.WaitAnswered(t, one+20, waitMax)
	if most := atOnce(p.Requests()[one:]); most != 1 {
		t.Errorf("%d requests at once in one lane", most)
	}

	p.mend("6")
	four := lanes(4)
	p.mend("7")
	b.wantCursor(n)
	requests := p.Requests()
	wantKeyOrder(t, requests, p.accepted, n)
	if got := len(p.got()); got != n {
		t.Errorf("%d arrivals of %d events", got, n)
	}
	if most := atOnce(requests[:one]); most < 8 || most > 16 {
		t.Errorf("%d requests at once in 16 lanes", most)
	}
	if most := atOnce(requests[four:]); most < 3 || most > 4 {
		t.Errorf("%d requests at once in 4 lanes", most)
	}
	if row := b.row(); len(row.Settled) > 0 || len(row.FailingEvents) > 0 {
		t.Errorf("%+v", row)
	}
}

// TestBatchAuto has the batch size found against a consumer that takes 37 events
// in one request and no more.
func TestBatchAuto(t *testing.T) {
	t.Parallel()
	const n, most = 4000, 37
	b := setup(t)
	var a answers
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, r *testkit.Request) testkit.Answer {
		if len(sentEvents(t, *r)) > most {
			return a.note(n, testkit.Answer{Status: 413})
		}
		return a.note(n, testkit.Answer{})
	}})
	for range n / 500 {
		b.publish(properties(500)...)
	}
	b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize = event.Auto })
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	wantSequence(t, arrivals(t, requests, a.accepted), n)
	var sizes []int
	refused := 0
	for _, q := range requests {
		if !bytes.Contains(q.Body, []byte(`"value":[`)) {
			t.Fatalf("request %d has no array: %s", q.N, q.Body)
		}
		sizes = append(sizes, len(sentEvents(t, q)))
		if !a.accepted(q) {
			refused++
		}
	}
	row := b.row()
	t.Logf("%d requests, %d refused, learned %d: %v", len(requests), refused, row.LearnedBatch, sizes)
	last := slices.Sorted(slices.Values(sizes[len(sizes)/2:]))
	if middle := last[len(last)/2]; middle > most || middle <= most/2 || refused > len(requests)/10 {
		t.Errorf("settled at %d events, %d of %d requests were refused", middle, refused, len(requests))
	}
	if row.LearnedBatch <= most/2 || row.LearnedBatch > most+1 || row.LearnedLanes != 0 {
		t.Errorf("learned %d events, %d lanes", row.LearnedBatch, row.LearnedLanes)
	}

	// The next run goes on with what was learnt.
	b.publish(properties(200)...)
	b.drive(contract.OutcomeParked)
	wantSequence(t, arrivals(t, r.Requests(), a.accepted), n+200)
	if first := len(sentEvents(t, r.Requests()[len(requests)])); first <= most/2 || first > most+1 {
		t.Errorf("the next run begins with %d events", first)
	}
}

// TestLanesAuto has the lanes found against a consumer that answers eight requests
// at once as fast as one, and no more.
func TestLanesAuto(t *testing.T) {
	t.Parallel()
	const n, best = 3000, 8
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	r.SetScript(func(int, *testkit.Request) testkit.Answer {
		hang := roundTrip
		if at := r.InFlight(); at > best {
			hang = roundTrip * time.Duration(at) / (best / 4)
		}
		return testkit.Answer{Hang: hang}
	})
	for range n / 500 {
		b.publish(properties(500)...)
	}
	b.create(r.URL(), func(s *event.Subscriber) { s.Lanes = event.Auto })
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	wantKeyOrder(t, requests, all, n)
	row := b.row()
	settled := atOnce(requests[n/3:])
	t.Logf("learned %d lanes, %d at once at first, %d later", row.LearnedLanes, atOnce(requests[:n/3]), settled)
	if row.LearnedLanes < best/4 || row.LearnedLanes > 2*best || settled > 3*best || row.LearnedBatch != 0 {
		t.Errorf("learned %d lanes, %d events; %d requests at once", row.LearnedLanes, row.LearnedBatch, settled)
	}
}
