package activities_test

import (
	"testing"
	"time"

	"postroad/event"
)

// TestHeldKilled kills processes that deliver in sixteen lanes while a key is held
// and another one fails: what is settled above the position, what is set aside and
// what fails is as it was for the next one.
func TestHeldKilled(t *testing.T) {
	t.Parallel()
	const n, keys, lanes, kills = 3000, 100, 16, 3
	b, p := setup(t), newPicky(t, 422, "7")
	p.slow.Store(int64(time.Millisecond))
	for range n / 500 {
		b.publish(spread(500, keys)...)
	}
	b.create(p.URL(), func(s *event.Subscriber) {
		heldSteps(s)
		s.Lanes, s.OnExhausted = lanes, event.OnExhaustedHold
	})
	for i := range kills {
		kill := b.spawn()
		p.WaitAnswered(t, 600*(i+1), waitMax)
		kill()
		if i == 1 {
			p.refuses.Store("40", true) // the second one, in the middle
		}
	}
	if held := b.heldKeys(); len(held) == 0 || held[0].Key != property("40") && held[0].Key != property("7") {
		t.Errorf("held: %+v", held)
	}
	p.mend("7", "40")
	b.driveReleased()
	// Of each key the events come in order, but for stretches that come again.
	last, seen, arrived := map[string]int64{}, map[int64]bool{}, 0
	for _, r := range p.Requests() {
		if !p.accepted(r) {
			continue
		}
		e := sentEvents(t, r)[0]
		if was, known := last[e.Key]; known && e.Sequence > was+keys {
			t.Fatalf("event %d of %s arrived after %d", e.Sequence, e.Key, was)
		}
		last[e.Key] = e.Sequence
		seen[e.Sequence] = true
		arrived++
	}
	t.Logf("%d repeats after %d kills", arrived-n, kills)
	if len(seen) != n || arrived-n > kills*(500+lanes) {
		t.Errorf("%d of %d events arrived, %d repeats", len(seen), n, arrived-n)
	}
	if row := b.row(); row.Cursor != n || len(row.Settled) > 0 || len(b.deadLetters()) > 0 {
		t.Errorf("%+v, %+v", row, b.deadLetters())
	}
}
