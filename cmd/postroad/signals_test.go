package main_test

import (
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"postroad/contract"
	"postroad/internal/testkit"
)

// forceMax is how soon a control is in force.
const forceMax = time.Second

// signaller sends a signal without a payload and returns when it was accepted.
type signaller func(name string) time.Time

// signallers are the ways in which people send signals.
var signallers = map[string]func(t *testing.T, r *road) signaller{
	"ui": func(t *testing.T, r *road) signaller {
		ui := openUI(t, r)
		return func(name string) time.Time { return ui.signal(r.name, name) }
	},
	"sdk": func(t *testing.T, r *road) signaller {
		temporal := sharedTemporal(t)
		return func(name string) time.Time {
			signalThrough(t, temporal, r.name, name, nil)
			return time.Now()
		}
	},
}

func signalThrough(t *testing.T, temporal client.Client, subscriber, name string, payload any) {
	t.Helper()
	if err := temporal.SignalWorkflow(t.Context(), contract.SubscriberWorkflowID(subscriber), "", name, payload); err != nil {
		t.Fatalf("signal %s: %v", name, err)
	}
}

// TestSignalWhileSending pauses a busy subscriber by a plain signal: no request
// starts later than a second after it, and none is repeated after the resume.
func TestSignalWhileSending(t *testing.T) {
	t.Parallel()
	for way, open := range signallers {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			events := testkit.Lines(t, "sdk-go")[:800]
			r := newRoad(t, sharedAPI(t), "signal-busy-"+way, slow(3*time.Millisecond), nil)
			send := open(t, r)
			r.publish(events)
			r.consumer.WaitFor(t, 100, waitMax)

			paused := send(contract.SignalPause)
			r.awaitPaused()
			<-time.After(time.Until(paused.Add(forceMax + time.Second)))
			if r.consumer.Count() == len(events) {
				t.Fatal("all was delivered before the pause: this shows nothing")
			}
			resumed := time.Now()
			send(contract.SignalResume)
			r.awaitCursor(waitMax, len(events))

			onceInOrder(t, r.consumer.Requests(), len(events))
			var last time.Time
			for _, request := range r.consumer.Requests() {
				if request.At.Before(resumed) {
					last = request.At
				}
			}
			t.Logf("the last request began %d ms after the pause was sent", last.Sub(paused).Milliseconds())
			if last.After(paused.Add(forceMax)) {
				t.Errorf("a request began %s after the pause was sent", last.Sub(paused))
			}
		})
	}
}

// TestSignalWhileRequestHangs pauses a subscriber whose consumer does not
// answer: the pause is in force before the answer, and none follows it.
func TestSignalWhileRequestHangs(t *testing.T) {
	t.Parallel()
	for way, open := range signallers {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			const hanging, total = 20, 40
			answer := make(chan struct{})
			script := func(n int, _ *testkit.Request) testkit.Answer {
				if n == hanging {
					return testkit.Answer{Until: answer}
				}
				return testkit.Answer{}
			}
			r := newRoad(t, sharedAPI(t), "signal-hanging-"+way, script, map[string]any{"batchSize": 1})
			send := open(t, r)
			r.publish(numbered(total))
			r.consumer.WaitFor(t, hanging, waitMax)

			paused := send(contract.SignalPause)
			r.awaitPaused()
			t.Logf("in force %d ms after the pause was sent", time.Since(paused).Milliseconds())
			if took := time.Since(paused); took > forceMax {
				t.Errorf("the pause was in force after %s", took)
			}
			if n := r.consumer.InFlight(); n != 1 {
				t.Fatalf("%d requests are in flight, want the one that hangs", n)
			}
			close(answer)
			r.consumer.WaitAnswered(t, hanging, waitMax)
			r.stays(hanging, time.Second)

			send(contract.SignalResume)
			r.awaitCursor(waitMax, total)
			onceInOrder(t, r.consumer.Requests(), total)
		})
	}
}

// TestSignalRepeatsWhatFailed: what had no 2xx before the pause, and nothing
// else, comes again after the resume.
func TestSignalRepeatsWhatFailed(t *testing.T) {
	t.Parallel()
	const failing, total = 5, 10
	answer := make(chan struct{})
	r := newRoad(t, sharedAPI(t), "signal-failing", func(n int, _ *testkit.Request) testkit.Answer {
		if n == failing {
			return testkit.Answer{Until: answer, Status: 500}
		}
		return testkit.Answer{}
	}, map[string]any{"retry": map[string]any{"schedule": []string{"100ms"}}})
	temporal := sharedTemporal(t)
	r.publish(numbered(total))
	r.consumer.WaitFor(t, failing, waitMax)
	signalThrough(t, temporal, r.name, contract.SignalPause, nil)
	r.awaitPaused()
	close(answer)
	r.consumer.WaitAnswered(t, failing, waitMax)
	r.stays(failing, time.Second)
	signalThrough(t, temporal, r.name, contract.SignalResume, nil)
	r.awaitCursor(waitMax, total)
	requests := r.consumer.Requests()
	onceInOrder(t, append(requests[:failing-1:failing-1], requests[failing:]...), total)
	if got := firstOf(t, requests[failing-1]); got != failing {
		t.Errorf("the failed request brought event %d, want %d", got, failing)
	}
}

// TestSignalWithBrokenPayload: whoever presses the button means a pause,
// whatever stands in the field.
func TestSignalWithBrokenPayload(t *testing.T) {
	t.Parallel()
	r := newRoad(t, sharedAPI(t), "signal-broken", nil, nil)
	ui := openUI(t, r)
	for name, payload := range map[string]struct{ encoding, data string }{
		"broken JSON":       {"json/plain", `{"until":`},
		"another type":      {"json/plain", `[1,"two"]`},
		"a broken until":    {"json/plain", `{"until":"tomorrow"}`},
		"fields of no use":  {"json/plain", `{"until":7,"reason":{}}`},
		"unknown encoding":  {"binary/encrypted", "\x00\x01\xff"},
		"empty and encoded": {"json/plain", ""},
	} {
		ui.signalWith(r.name, contract.SignalPause, payload.encoding, []byte(payload.data))
		if s := r.awaitPaused(); s.PausedUntil != nil {
			t.Errorf("%s: paused until %s, want until resumed", name, s.PausedUntil)
		}
		if status := r.control(contract.ControlResume); status != 200 {
			t.Errorf("%s: resume answered %d", name, status)
		}
	}
}

// TestSignalUntil: a pause with an end ends by itself.
func TestSignalUntil(t *testing.T) {
	t.Parallel()
	const total = 600
	r := newRoad(t, sharedAPI(t), "signal-until", slow(3*time.Millisecond), nil)
	r.publish(numbered(total))
	r.consumer.WaitFor(t, 50, waitMax)
	until := time.Now().Add(3 * time.Second)
	signalThrough(t, sharedTemporal(t), r.name, contract.SignalPause, contract.PauseSignal{Reason: "maintenance", Until: until.Format(time.RFC3339Nano)})
	if s := r.awaitPaused(); s.PausedUntil == nil || s.PausedUntil.Sub(until).Abs() > time.Millisecond {
		t.Errorf("paused until %v, want %v", s.PausedUntil, until)
	}
	before := r.consumer.Count()
	if before == total {
		t.Fatal("all was delivered before the pause: this shows nothing")
	}
	requests := r.consumer.WaitFor(t, before+1, waitMax)
	// The consumer's clock and the database's are this machine's.
	late := requests[before].At.Sub(until)
	t.Logf("the first request began %d ms after the pause's end", late.Milliseconds())
	if late < 0 || late > 5*time.Second {
		t.Errorf("the first request began %s after the pause's end", late)
	}
	r.awaitCursor(waitMax, total)
	onceInOrder(t, r.consumer.Requests(), total)
}

// TestTerminatedWhilePaused ends the run in the Temporal UI: the subscription
// and its pause go on, and a resume builds a new run.
func TestTerminatedWhilePaused(t *testing.T) {
	t.Parallel()
	const before, total = 10, 30
	r := newRoad(t, sharedAPI(t), "signal-terminated", nil, nil)
	temporal := sharedTemporal(t)
	ui := openUI(t, r)
	r.publish(numbered(before))
	r.awaitCursor(waitMax, before)
	ui.signal(r.name, contract.SignalPause)
	r.awaitPaused()
	first := describe(t, temporal, r.name)
	ui.post(r.name, "terminate", map[string]any{"reason": "by hand"})
	testkit.Eventually(t, waitMax, func() bool {
		return describe(t, temporal, r.name).GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
	}, "the run is terminated")

	r.publish(numbered(total - before))
	r.stays(before, time.Second)
	if s := r.status(); s.State != contract.StatePaused {
		t.Errorf("the subscriber is %s: %s", s.State, s.Reason)
	}
	if status := r.control(contract.ControlResume); status != 200 {
		t.Errorf("resume answered %d", status)
	}
	r.awaitCursor(waitMax, total)
	onceInOrder(t, r.consumer.Requests(), total)
	now := describe(t, temporal, r.name)
	if now.GetExecution().GetRunId() == first.GetExecution().GetRunId() || now.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		t.Errorf("run %s is %s, want a new one that runs", now.GetExecution().GetRunId(), now.GetStatus())
	}
}
