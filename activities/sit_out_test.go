package activities_test

import (
	"testing"
	"time"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// TestSitOut shows a Deliver that stays for a wait: the row is at rest meanwhile,
// nothing is sent, and whatever would end the wait of a workflow ends this one.
func TestSitOut(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, seconds string, changes ...func(*activities.Config)) (*bundle, *testkit.Receiver, *running) {
		t.Parallel()
		stay := func(c *activities.Config) { c.SitOut = 2 * time.Hour }
		long := func(c *activities.Config) { c.Budget = 3 * time.Hour }
		b := setup(t, append([]func(*activities.Config){stay, long}, changes...)...)
		b.publish(properties(10)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
			if n == 3 {
				return asked(seconds)
			}
			return testkit.Answer{}
		}})
		b.create(r.URL(), nil)
		deliver := b.start(t.Context())
		testkit.Eventually(t, waitMax, func() bool { return b.Sitting() == 1 }, "Deliver sits the wait out")
		row := b.row()
		if state, reason := store.Describe(&row); state != store.StateWaiting || row.Lease != nil || r.Count() != 3 {
			t.Fatalf("while it waits: %s (%s), lease %v, %d requests", state, reason, row.Lease, r.Count())
		}
		return b, r, deliver
	}
	goesOn := func(t *testing.T, b *bundle, r *testkit.Receiver, deliver *running) {
		t.Helper()
		deliver.want(contract.OutcomeParked)
		requests := r.Requests()
		if len(requests) != 11 || b.row().Cursor != 10 {
			t.Errorf("%d requests, cursor %d", len(requests), b.row().Cursor)
		}
	}

	t.Run("its end", func(t *testing.T) {
		b, r, deliver := begin(t, "1")
		goesOn(t, b, r, deliver)
		if wait := r.Requests()[3].At.Sub(r.Requests()[2].At); wait < time.Second {
			t.Errorf("the next request came after %v", wait)
		}
	})
	t.Run("resume", func(t *testing.T) {
		b, r, deliver := begin(t, "3600")
		if !b.control(store.ControlResume).InForce {
			t.Error("nobody holds the lease, but the resume is not in force")
		}
		goesOn(t, b, r, deliver)
	})
	t.Run("pause", func(t *testing.T) {
		b, r, deliver := begin(t, "3600")
		if !b.control(store.ControlPause).InForce {
			t.Error("nobody holds the lease, but the pause is not in force")
		}
		deliver.want(contract.OutcomePaused)
		if r.Count() != 3 {
			t.Errorf("%d requests", r.Count())
		}
	})
	t.Run("configure does not end what the consumer asked for", func(t *testing.T) {
		b, r, deliver := begin(t, "2")
		until := *b.row().NotBefore
		if !b.configure(func(s *event.Subscriber, _ *event.Secrets) { s.BatchSize = 4 }).InForce {
			t.Error("nobody holds the lease, but the change is not in force")
		}
		if row := b.row(); row.NotBefore == nil || !row.NotBefore.Equal(until) {
			t.Errorf("the wait lasts until %v, was %v", row.NotBefore, until)
		}
		deliver.want(contract.OutcomeParked)
		requests := r.Requests()
		if wait := requests[3].At.Sub(requests[2].At); wait < 2*time.Second {
			t.Errorf("the next request came after %v", wait)
		}
		if probe, next := arrivals(t, requests[3:4], all), arrivals(t, requests[4:5], all); len(probe) != 1 || len(next) != 4 {
			t.Errorf("after the wait came %v, then %v", probe, next)
		}
	})
	t.Run("drain", func(t *testing.T) {
		b, r, deliver := begin(t, "3600")
		// Whoever takes the row up, as if this process had died, waits for the rest.
		other := setupOn(t, b.url)
		if result := other.deliver(); result.Outcome != contract.OutcomeBackoff || result.State != contract.StateWaiting {
			t.Errorf("another worker: %+v", result)
		}
		b.Drain()
		deliver.want(contract.OutcomeInterrupted)
		row := b.row()
		if row.NotBefore == nil || row.Lease != nil || r.Count() != 3 {
			t.Errorf("%+v, %d requests", row, r.Count())
		}
		if result := other.deliver(); result.Outcome != contract.OutcomeBackoff || result.State != contract.StateWaiting {
			t.Errorf("another worker, later: %+v", result)
		}
	})
	t.Run("slots become short", func(t *testing.T) {
		b, r, deliver := begin(t, "3600", func(c *activities.Config) { c.Slots = 2 })
		b.create(r.URL(), func(s *event.Subscriber) { s.ID = "other" })
		b.followAll("other")
		if result := deliver.want(contract.OutcomeBackoff); result.RemainingMillis < 3_500_000 {
			t.Errorf("%+v", result)
		}
	})
}

// TestSitOut_bound: a wait that is longer than the bound, or than what is left of
// the budget, is for the workflow.
func TestSitOut_bound(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*activities.Config){
		"SitOut": func(c *activities.Config) { c.SitOut = time.Second },
		"budget": func(c *activities.Config) { c.SitOut, c.Budget = time.Minute, time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, change)
			b.publish(properties(1)...)
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer { return asked("30") }})
			b.create(r.URL(), nil)
			if result := b.deliver(); result.Outcome != contract.OutcomeBackoff || result.RemainingMillis < 25_000 {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestSitOut_wall: a consumer that asks for a second each time costs Temporal one
// Deliver, not one for each time.
func TestSitOut_wall(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.SitOut = 2 * time.Second })
	b.publish(properties(10)...)
	var script answers
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n <= 3 {
			return script.note(n, asked("1"))
		}
		return script.note(n, testkit.Answer{})
	}})
	b.create(r.URL(), nil)
	if result := b.deliver(); result.Outcome != contract.OutcomeParked || result.Delivered != 10 {
		t.Errorf("one Deliver: %+v", result)
	}
	wantSequence(t, arrivals(t, r.Requests(), script.accepted), 10)
}
