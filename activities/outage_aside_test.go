package activities_test

import (
	"fmt"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// TestOutageAside leaves an endpoint down for three days where events that are
// refused would be set aside: none is, as nothing else is accepted either.
func TestOutageAside(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{event.OnExhaustedHold, event.OnExhaustedSkip} {
		for _, lanes := range []int{1, 16} {
			for _, batch := range []int{1, 20} {
				change := func(s *event.Subscriber) { s.OnExhausted, s.Lanes = policy, event.Count(lanes) }
				name := fmt.Sprintf("%s/%d lanes of %d", policy, lanes, batch)
				t.Run("refuses connections/"+name, func(t *testing.T) {
					t.Parallel()
					url, listen := refusing(t)
					o := newOutage(t, url, batch, change)
					o.failAside(lanes)
					o.wantAllByKey(testkit.NewReceiver(t, testkit.ReceiverOptions{Listener: listen()}), 0)
				})
				t.Run("answers 503/"+name, func(t *testing.T) {
					t.Parallel()
					r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: always(503)})
					o := newOutage(t, r.URL(), batch, change)
					o.failAside(lanes)
					since := r.Count()
					r.SetScript(nil)
					o.wantAllByKey(r, since)
				})
				if lanes > 1 && (batch > 1) != (policy == event.OnExhaustedHold) {
					continue // each lane has a schedule of its own: many runs
				}
				t.Run("answers 500/"+name, func(t *testing.T) {
					t.Parallel()
					r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: always(500)})
					o := newOutage(t, r.URL(), batch, change)
					o.refuseAside(r, lanes, batch)
					since := r.Count()
					r.SetScript(nil)
					o.wantAllByKey(r, since)
				})
			}
		}
	}
}

// failAside goes through an outage that no event is to blame for. Only the first
// requests can be as many as there are lanes.
func (o *outage) failAside(lanes int) {
	o.t.Helper()
	if result := o.fail(3 * day); result.Outcome != contract.OutcomeBackoff {
		o.t.Fatalf("after %s: %+v", o.passed, result)
	}
	least, most := o.requestsWithin(3 * day)
	if o.delivers < least || o.delivers > most {
		o.t.Errorf("%d runs in %s, want %d to %d", o.delivers, o.passed, least, most)
	}
	testkit.Eventually(o.t, waitMax, func() bool { return o.failed() >= o.delivers }, "the requests are recorded")
	if got := o.failed(); got > o.delivers+lanes-1 {
		o.t.Errorf("%d requests in %d runs of %d lanes", got, o.delivers, lanes)
	}
	if row := o.row(); row.EventAttempt != 0 || len(row.FailingEvents) > 0 || row.Failures != o.delivers {
		o.t.Errorf("after %s: %+v", o.passed, row)
	}
	o.wantNothingAside()
}

// refuseAside goes through an outage whose answers blame the events. Each lane has
// one that is tried along the schedule, and each wait may be followed by a trial.
func (o *outage) refuseAside(r *testkit.Receiver, lanes, batch int) {
	o.t.Helper()
	for o.passed < 3*day {
		result := o.deliver()
		if result.Outcome != contract.OutcomeBackoff || result.State != contract.StateRetrying {
			o.t.Fatalf("after %s: %+v", o.passed, result)
		}
		if o.delivers++; o.delivers%lanes == 0 {
			o.more(outageEach)
		}
		o.pass(time.Duration(result.RemainingMillis) * time.Millisecond)
	}
	least, most := o.requestsWithin(3 * day)
	least, most = least*lanes, 2*most*lanes+2*batch*lanes
	o.t.Logf("%d requests by %d runs in %s", r.Count(), o.delivers, o.passed)
	if got := r.Count(); got < least || got > most {
		o.t.Errorf("%d requests in %s, want %d to %d", got, o.passed, least, most)
	}
	o.wantNothingAside()
}

func (o *outage) wantNothingAside() {
	o.t.Helper()
	if row := o.row(); row.Cursor != 0 || len(row.Settled) > 0 || row.Disabled || row.HaltedReason != nil || row.Lease != nil {
		o.t.Errorf("after the outage: %+v", row)
	}
	if held, dead := o.heldKeys(), o.deadLetters(); len(held)+len(dead) > 0 {
		o.t.Errorf("%d keys held, %d dead letters after the outage: %+v %+v", len(held), len(dead), held, dead)
	}
}

// wantAllByKey checks that the mended endpoint gets everything, in order of each
// record, each event once, and that nothing of the outage is left.
func (o *outage) wantAllByKey(r *testkit.Receiver, since int) {
	o.t.Helper()
	o.drive(contract.OutcomeParked)
	o.more(outageEach)
	o.drive(contract.OutcomeParked)
	requests := r.Requests()[since:]
	wantKeyOrder(o.t, requests, all, o.published)
	if got := len(arrivals(o.t, requests, all)); got != o.published {
		o.t.Errorf("%d arrivals of %d events", got, o.published)
	}
	if first := arrivals(o.t, requests[:1], all); len(first) != 1 {
		o.t.Errorf("the first request brought %d events, want a probe", len(first))
	}
	row := o.row()
	if row.Cursor != int64(o.published) || len(row.Settled) > 0 || len(row.FailingEvents) > 0 || row.Failures != 0 || row.FailingSince != nil || row.WakeAt != nil {
		o.t.Errorf("when all has arrived: %+v", row)
	}
	if held, dead := o.heldKeys(), o.deadLetters(); len(held)+len(dead) > 0 {
		o.t.Errorf("mended: %d keys held, %d dead letters", len(held), len(dead))
	}
}
