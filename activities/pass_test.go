package activities_test

import (
	"context"
	"testing"
	"time"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// TestPassedOver: events that a subscriber does not match are not read again,
// whatever becomes of its run: its position moves over them. Those that were
// passed are made to match, so that whoever reads one again sends it.
func TestPassedOver(t *testing.T) {
	t.Parallel()
	const n = 5000
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	direct := setup(t)
	direct.create(r.URL(), func(s *event.Subscriber) { s.Filter = event.Filter{ResourceNames: []string{"Member"}} })
	worker := func(linger, touch time.Duration) *bundle {
		return setupOn(t, direct.url, func(c *activities.Config) { c.Linger, c.Touch = linger, touch })
	}
	spoil := func() { direct.exec(`UPDATE events SET resource_name = 'Member'`) }

	// A run that lingers tells the row at each touch.
	lingering := worker(time.Hour, 50*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	deliver := lingering.start(ctx)
	direct.publish(properties(n)...)
	testkit.Eventually(t, waitMax, func() bool { return direct.row().Cursor == n }, "the row's position moves")
	spoil()
	cancel()
	deliver.want(contract.OutcomeInterrupted)

	// The next worker goes on there, and a run that parks tells the row first.
	parking := worker(2*time.Second, time.Hour)
	tail := parking.log.Follow(direct.row().FeedID, n, event.Filter{ResourceNames: []string{"Member"}})
	defer tail.Close()
	waited := make(chan struct{})
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		defer close(waited)
		_ = tail.Wait(ctx)
	}()
	defer func() { <-waited }()
	defer cancel()
	testkit.Eventually(t, waitMax, func() bool { return tail.Passed() == n }, "the tail stands there")
	deliver = parking.start(t.Context())
	direct.publish(properties(n)...)
	testkit.Eventually(t, waitMax, func() bool { return tail.Passed() == 2*n }, "the tail has passed them")
	spoil()
	deliver.want(contract.OutcomeParked)
	if row := direct.row(); row.Cursor != 2*n || r.Count() != 0 {
		t.Errorf("parked at %d with %d requests, want %d and none", row.Cursor, r.Count(), 2*n)
	}

	// What matches is sent.
	direct.publish(event.Event{ResourceName: "Member", ResourceRecordKey: "1"})
	worker(time.Millisecond, time.Hour).drive(contract.OutcomeParked)
	requests := r.WaitFor(t, 1, waitMax)
	if got := requests[0].Header.Get("Postroad-Sequence"); len(requests) != 1 || got != "10001" {
		t.Errorf("%d requests, the first of event %s", len(requests), got)
	}
}
