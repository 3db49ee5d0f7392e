package activities_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

const hour = event.Duration(time.Hour)

func asked(seconds string) testkit.Answer {
	return testkit.Answer{Status: 429, Header: http.Header{"Retry-After": {seconds}}}
}

// TestPoisonedEvent sends batches of 100 to a consumer that refuses whatever
// holds event 57.
func TestPoisonedEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.publishStream("sdk-go", 500)
	var script answers
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, q *testkit.Request) testkit.Answer {
		for _, sequence := range arrivals(t, []testkit.Request{*q}, all) {
			if sequence == 57 {
				return script.note(n, testkit.Answer{Status: 422})
			}
		}
		return script.note(n, testkit.Answer{})
	}})
	b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize = 100 })
	b.drive(contract.OutcomeHalted)
	wantSequence(t, arrivals(t, r.Requests(), script.accepted), 56)
	sent := map[int64]int{}
	for _, sequence := range arrivals(t, r.Requests(), all) {
		sent[sequence]++
	}
	for sequence, n := range sent {
		if sequence != 57 && n > 10 {
			t.Errorf("event %d was in %d requests", sequence, n)
		}
	}
	const sentence = "halted: event 57 (Commit) was refused 5 times, last answer HTTP 422 from the consumer"
	row := b.row()
	state, reason := store.Describe(&row)
	want := strings.ReplaceAll(sentence, "Commit", stream(t, "sdk-go")[56].ResourceName)
	if state != store.StateHalted || reason != want {
		t.Errorf("%s: %q, want %q", state, reason, want)
	}

	halted := r.Count()
	if result := b.deliver(); result.Outcome != contract.OutcomeHalted || result.Reason != want || r.Count() != halted {
		t.Errorf("while halted: %+v, %d requests", result, r.Count()-halted)
	}
	r.SetScript(func(n int, _ *testkit.Request) testkit.Answer { return script.note(n, testkit.Answer{}) })
	b.control(store.ControlResume)
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	if first := arrivals(t, requests[halted:halted+1], all); len(first) != 1 || first[0] != 57 {
		t.Errorf("after the mending %v came first", first)
	}
	wantSequence(t, arrivals(t, requests, script.accepted), n)
}

// TestRetryAfter shows what ends a wait that the consumer asked for, and that
// nothing is sent until then.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, seconds string) (*bundle, *testkit.Receiver, *answers) {
		t.Parallel()
		b, script := setup(t), &answers{}
		b.publish(properties(500)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
			if n == 2 {
				return script.note(n, asked(seconds))
			}
			return script.note(n, testkit.Answer{})
		}})
		b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize = 100 })
		return b, r, script
	}
	wantWaiting := func(t *testing.T, result contract.DeliverResult, most time.Duration) {
		t.Helper()
		left := time.Duration(result.RemainingMillis) * time.Millisecond
		if result.Outcome != contract.OutcomeBackoff || result.State != contract.StateWaiting || left > most || left <= 0 {
			t.Fatalf("%+v, want a wait of at most %v", result, most)
		}
	}
	wantProbe := func(t *testing.T, b *bundle, r *testkit.Receiver, script *answers) {
		t.Helper()
		before := r.Count()
		b.drive(contract.OutcomeParked)
		requests := r.Requests()
		if probe := arrivals(t, requests[before:before+1], all); len(probe) != 1 || probe[0] != 101 {
			t.Errorf("the first request after the wait held %v", probe)
		}
		if next := arrivals(t, requests[before+1:before+2], all); len(next) != 100 {
			t.Errorf("the second held %d events", len(next))
		}
		wantSequence(t, arrivals(t, requests, script.accepted), 500)
	}

	t.Run("its end", func(t *testing.T) {
		b, r, script := begin(t, "2")
		wantWaiting(t, b.deliver(), 2*time.Second)
		answered, until := r.Requests()[1], b.row().NotBefore
		// A restart changes nothing.
		other := setupOn(t, b.url)
		wantWaiting(t, other.deliver(), 2*time.Second)
		if again := b.row().NotBefore; !again.Equal(*until) {
			t.Errorf("the wait lasts until %v, and until %v after a restart", until, again)
		}
		wantProbe(t, other, r, script)
		if wait := r.Requests()[2].At.Sub(answered.At); wait < 2*time.Second {
			t.Errorf("the next request came after %v", wait)
		}
		if row := b.row(); row.EventAttempt != 0 || row.Failures != 0 || row.Asked != 0 {
			t.Errorf("the wait cost something: %+v", row)
		}
	})
	t.Run("resume", func(t *testing.T) {
		b, r, script := begin(t, "3600")
		wantWaiting(t, b.deliver(), time.Hour)
		b.control(store.ControlResume)
		wantProbe(t, b, r, script)
	})
	t.Run("not a resume from a pause", func(t *testing.T) {
		b, r, script := begin(t, "3600")
		wantWaiting(t, b.deliver(), time.Hour)
		b.control(store.ControlPause)
		if result := b.deliver(); result.Outcome != contract.OutcomePaused {
			t.Fatalf("paused: %+v", result)
		}
		b.control(store.ControlResume)
		wantWaiting(t, b.deliver(), time.Hour)
		if r.Count() != 2 {
			t.Errorf("%d requests", r.Count())
		}
		b.control(store.ControlResume)
		wantProbe(t, b, r, script)
	})
	t.Run("not a new configuration", func(t *testing.T) {
		b, r, _ := begin(t, "3600")
		wantWaiting(t, b.deliver(), time.Hour)
		b.configure(func(s *event.Subscriber, _ *event.Secrets) { s.Endpoint.URL = r.URL() + "/elsewhere" })
		wantWaiting(t, b.deliver(), time.Hour)
		if r.Count() != 2 {
			t.Errorf("%d requests", r.Count())
		}
	})
	t.Run("not a new configuration in flight", func(t *testing.T) {
		b, r, _ := begin(t, "3600")
		answer := make(chan struct{})
		r.SetScript(func(int, *testkit.Request) testkit.Answer {
			a := asked("3600")
			a.Until = answer
			return a
		})
		deliver := b.start(t.Context())
		r.WaitFor(t, 1, waitMax)
		b.configure(func(s *event.Subscriber, _ *event.Secrets) { s.Endpoint.URL = r.URL() + "/elsewhere" })
		close(answer)
		wantWaiting(t, deliver.want(contract.OutcomeBackoff), time.Hour)
		wantWaiting(t, b.deliver(), time.Hour)
	})
}

// TestWaitWritten keeps the wait from being written: as long as it is not in
// the row nobody hears of it, and nobody goes on.
func TestWaitWritten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(properties(3)...)
	held := make(chan func(), 1)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 1 {
			held <- b.hold("SELECT FROM runs FOR UPDATE")
		}
		return asked("3600")
	}})
	b.create(r.URL(), nil)
	deliver := b.start(t.Context())
	release := <-held
	t.Cleanup(release)
	r.WaitAnswered(t, 1, waitMax)
	wantQuiet(t, r, 300*time.Millisecond)
	if len(deliver.result) != 0 || len(deliver.failed) != 0 || b.sessions(`wait_event_type = 'Lock'`) || b.row().NotBefore != nil {
		t.Error("it went on before the wait was written")
	}
	release()
	deliver.want(contract.OutcomeBackoff)
	if row := b.row(); r.Count() != 1 || row.Remaining() == 0 || row.Lease != nil {
		t.Errorf("%d requests, %+v", r.Count(), row)
	}
}

// TestFailureBackoff shows what ends a wait after a failure.
func TestFailureBackoff(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*bundle, *testkit.Receiver) {
		t.Parallel()
		b := setup(t)
		b.publish(properties(3)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(_ int, q *testkit.Request) testkit.Answer {
			if q.Path == "/" {
				return testkit.Answer{Status: 404}
			}
			return testkit.Answer{}
		}})
		b.create(r.URL(), func(s *event.Subscriber) { s.Retry.Schedule = []event.Duration{hour} })
		return b, r
	}
	elsewhere := func(r *testkit.Receiver) func(*event.Subscriber, *event.Secrets) {
		return func(s *event.Subscriber, _ *event.Secrets) { s.Endpoint.URL = r.URL() + "/elsewhere" }
	}

	t.Run("a new endpoint", func(t *testing.T) {
		b, r := begin(t)
		if result := b.deliver(); result.Outcome != contract.OutcomeBackoff || result.State != contract.StateRetrying {
			t.Fatalf("%+v", result)
		}
		b.configure(func(s *event.Subscriber, _ *event.Secrets) { s.Description = "another" })
		if result := b.deliver(); result.Outcome != contract.OutcomeBackoff {
			t.Fatalf("after a change of the description: %+v", result)
		}
		b.configure(elsewhere(r))
		b.drive(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests()[1:], all), 3)
	})
	// The old endpoint fails only after the change: while it hangs is when
	// people change it.
	t.Run("a new endpoint while the old one hangs", func(t *testing.T) {
		b, r := begin(t)
		r.SetScript(func(_ int, q *testkit.Request) testkit.Answer {
			if q.Path == "/" {
				return testkit.Answer{Hang: testkit.Forever}
			}
			return testkit.Answer{}
		})
		deliver := b.start(t.Context())
		r.WaitFor(t, 1, waitMax)
		b.wantInForce(b.configure(elsewhere(r)).Version)
		result := deliver.want(contract.OutcomeParked)
		if result.Delivered != 3 {
			t.Errorf("%+v", result)
		}
		wantSequence(t, arrivals(t, r.Requests()[1:], all), 3)
		if row := b.row(); row.Failures != 0 || row.FailingSince != nil {
			t.Errorf("failures %d since %v", row.Failures, row.FailingSince)
		}
	})
	t.Run("the schedule's end", func(t *testing.T) {
		b, r := begin(t)
		b.deliver()
		b.exec(`UPDATE runs SET failing_since = failing_since - interval '8 days', not_before = NULL`)
		result := b.deliver()
		const sentence = "halted: the endpoint failed for 7d without a break, last: HTTP 404 from the consumer"
		if result.Outcome != contract.OutcomeHalted || result.Reason != sentence {
			t.Errorf("%+v", result)
		}
		if r.Count() != 2 || b.row().EventAttempt != 0 {
			t.Errorf("%d requests, %d charged", r.Count(), b.row().EventAttempt)
		}
	})
	// One success between two failures, too close for a checkpoint of its own,
	// makes the failing begin anew.
	t.Run("a break", func(t *testing.T) {
		b, r := begin(t)
		b.deliver()
		b.exec(`UPDATE runs SET failing_since = failing_since - interval '6 days', not_before = NULL`)
		r.SetScript(func(n int, _ *testkit.Request) testkit.Answer {
			if n == 2 {
				return testkit.Answer{}
			}
			return testkit.Answer{Status: 502}
		})
		b.deliver()
		row := b.row()
		if row.FailingSince == nil || row.Now.Sub(*row.FailingSince) > time.Minute || row.Failures != 1 {
			t.Errorf("failing since %v, %d failures", row.FailingSince, row.Failures)
		}
	})
}

func TestGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(properties(3)...)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
		return testkit.Answer{Status: 410}
	}})
	b.create(r.URL(), nil)
	for range 2 {
		if result := b.deliver(); result.Outcome != contract.OutcomeHalted || result.State != contract.StateDisabled {
			t.Fatalf("%+v", result)
		}
	}
	if r.Count() != 1 || !b.row().Disabled {
		t.Errorf("%d requests, disabled %v", r.Count(), b.row().Disabled)
	}
	r.SetScript(nil)
	b.control(store.ControlResume)
	b.drive(contract.OutcomeParked)
	wantSequence(t, arrivals(t, r.Requests()[1:], all), 3)
}
