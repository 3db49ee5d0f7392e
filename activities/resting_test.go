package activities

import (
	"testing"
	"time"

	"postroad/activities/planner"
	"postroad/delivery"
	"postroad/event"
)

// TestResting has answers come just before a run would park: what they let start
// is started first.
func TestResting(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]delivery.Answer{
		"the next of its key":     {Class: delivery.ClassSuccess, Status: 200},
		"the other half":          {Class: delivery.ClassRecord, Status: 422},
		"once more, at once":      {Class: delivery.ClassEndpoint, Resend: true},
		"the same, as it was cut": {Class: delivery.ClassCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			r := &run{oneLane: true, plan: planner.New(planner.Config{Lanes: 2, BatchSize: 2}, planner.State{}, now)}
			r.a = &Activities{counters: newCounters()}
			r.flush = time.AfterFunc(time.Hour, func() {})
			r.a.cfg.CheckpointEvents = 100
			var events []*event.Event
			for i := range 3 {
				events = append(events, &event.Event{Sequence: int64(i + 1), ResourceName: "Property", ResourceRecordKey: "1"})
			}
			r.plan.Offer(events, nil, 3)
			first := r.next()
			r.underWay++
			if r.next() != nil || r.restingLocked() {
				t.Fatal("one is under way, and the next may not start")
			}
			r.judge(first, &answer)
			if r.restingLocked() {
				t.Error("rests, though there is something to send")
			}
			if r.next() == nil {
				t.Error("nothing is sent")
			}
		})
	}
}

// TestControlStaysPut: once a control is in force the position moves no more. What
// is published then is for the filter that the control may have brought.
func TestControlStaysPut(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*run{
		"a page that came just before":      {left: &page{events: []*event.Event{{Sequence: 2}}, scanned: 5}},
		"events that did not match it then": {left: &page{scanned: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.a = &Activities{cfg: Config{CheckpointEvents: 100}}
			r.plan, r.scanned, r.parking = planner.New(planner.Config{Lanes: 1, BatchSize: 1}, planner.State{Stream: planner.Stream{Cursor: 1}}, time.Now()), 1, true
			r.controlSeen(1)
			if r.offer(true) || r.scanned != 1 || r.left == nil || r.plan.Snapshot(time.Now()).Scanned != 1 {
				t.Errorf("the position moved to %d", r.scanned)
			}
		})
	}
}
