package activities_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// seekTo asks for the position to be moved to a sequence.
func (b *bundle) seekTo(sequence int64) store.ControlResult {
	b.t.Helper()
	result, err := b.store.Control(b.t.Context(), store.ControlRequest{
		Subscriber: "acme", Kind: store.ControlSeek, Seek: &store.SeekTarget{Sequence: &sequence}, Source: "test",
	})
	check(b.t, err)
	return result
}

// TestSeekInFlight moves the position while every lane has a request on its way.
// Those end and count for nothing that comes again; nothing else of before does.
func TestSeekInFlight(t *testing.T) {
	t.Parallel()
	const lanes, keys, n = 64, 200, 800
	for _, test := range []struct {
		name   string
		to     int64
		status int // of every third request in flight
	}{
		{"back", 100, 0}, {"back, some are refused", 100, 422}, {"to the beginning", 0, 503}, {"to where it is", 300, 0}, {"ahead", 600, 422},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, release := setup(t), make(chan struct{})
			var a answers
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, r *testkit.Request) testkit.Answer {
				// By the event: which of them come first, over so many lanes, is open.
				if sequence, _ := strconv.Atoi(r.Header.Get("Postroad-Sequence")); sequence <= 300 || n > 300+lanes {
					return a.note(n, testkit.Answer{})
				}
				answer := testkit.Answer{Until: release}
				if n%3 == 0 {
					answer.Status = test.status
				}
				return a.note(n, answer)
			}})
			b.publish(spread(n, keys)...)
			b.create(r.URL(), func(s *event.Subscriber) { s.Lanes, s.Endpoint.Timeout = lanes, event.Duration(waitMax) })
			b.followAll("acme")
			r.WaitFor(t, 300+lanes, waitMax)
			result := b.seekTo(test.to)
			b.wantGateClosed(result.Version)
			if inForce, err := b.store.InForce(t.Context(), "acme", result.Version); err != nil || inForce || result.InForce {
				t.Errorf("in force while %d requests hang: %v", r.InFlight(), err)
			}
			if r.Count() != 300+lanes || r.InFlight() != lanes {
				t.Fatalf("%d requests, %d in flight", r.Count(), r.InFlight())
			}
			close(release)
			b.wantInForce(result.Version)
			b.wantCursor(n)
			testkit.Eventually(t, waitMax, func() bool { return b.row().Parked }, "nothing is left")
			requests := r.Requests()
			again := requests[300+lanes:]
			wantAgain(t, again, test.to, n)
			wantOrderAgain(t, again)
			if row := b.row(); len(row.Settled) > 0 || len(row.FailingEvents) > 0 || row.HaltedReason != nil {
				t.Errorf("%+v", row)
			}
		})
	}
}

// wantAgain checks that the requests bring the events above one, each once.
func wantAgain(t *testing.T, requests []testkit.Request, above, head int64) {
	t.Helper()
	wantList(t, "what came since", slices.Sorted(slices.Values(arrivals(t, requests, all))), every(above+1, 1, head))
}

// wantOrderAgain checks requests that were all accepted against promise 3.
func wantOrderAgain(t *testing.T, requests []testkit.Request) {
	t.Helper()
	wantKeyOrder(t, requests, all, len(arrivals(t, requests, all)))
}

// TestSeekHeld moves the position of a subscriber that is not runnable: it goes on
// from there once it is, and not before.
func TestSeekHeld(t *testing.T) {
	t.Parallel()
	const n = 30
	begin := func(t *testing.T, change func(*event.Subscriber), script testkit.Script) (*bundle, *testkit.Receiver) {
		t.Helper()
		b, r := setup(t), testkit.NewReceiver(t, testkit.ReceiverOptions{Script: script})
		b.publish(properties(n)...)
		b.create(r.URL(), change)
		return b, r
	}
	for _, lanes := range []int{1, 8} {
		for _, to := range []int64{5, 25} {
			t.Run(fmt.Sprintf("paused/%d lanes/%d", lanes, to), func(t *testing.T) {
				t.Parallel()
				b, r := begin(t, func(s *event.Subscriber) { s.Lanes = event.Count(lanes) }, nil)
				b.drive(contract.OutcomeParked)
				b.control(store.ControlPause)
				if !b.seekTo(to).InForce || b.row().Cursor != to {
					t.Errorf("not moved at once: %+v", b.row())
				}
				if result := b.deliver(); result.Outcome != contract.OutcomePaused || r.Count() != n {
					t.Fatalf("%+v, %d requests", result, r.Count())
				}
				b.control(store.ControlResume)
				b.drive(contract.OutcomeParked)
				wantAgain(t, r.Requests()[n:], to, n)
				if first := r.Requests()[n].Header.Get("Postroad-Previous-Sequence"); lanes == 1 && first != "0" {
					t.Errorf("the first event after a seek names %s as the one before", first)
				}
			})
			t.Run(fmt.Sprintf("halted/%d lanes/%d", lanes, to), func(t *testing.T) {
				t.Parallel()
				b, r := begin(t, func(s *event.Subscriber) { s.Lanes, s.Retry.EventAttempts = event.Count(lanes), 1 }, always(422))
				if result := b.drive(contract.OutcomeHalted); result.Outcome != contract.OutcomeHalted {
					t.Fatalf("%+v", result)
				}
				b.seekTo(to)
				if result := b.deliver(); result.Outcome != contract.OutcomeHalted {
					t.Errorf("a seek ended the halt: %+v", result)
				}
				since := r.Count()
				r.SetScript(nil)
				b.control(store.ControlResume)
				b.drive(contract.OutcomeParked)
				wantAgain(t, r.Requests()[since:], to, n)
			})
			t.Run(fmt.Sprintf("waiting/%d lanes/%d", lanes, to), func(t *testing.T) {
				t.Parallel()
				b, r := begin(t, func(s *event.Subscriber) { s.Lanes = event.Count(lanes) }, func(i int, _ *testkit.Request) testkit.Answer {
					if i == 10 {
						return testkit.Answer{Status: 429, Header: http.Header{"Retry-After": {"2"}}}
					}
					return testkit.Answer{Hang: 50 * time.Millisecond} // so that few are settled beyond it
				})
				result := b.drive(contract.OutcomeBackoff)
				before := b.row().NotBefore
				since := r.Count()
				b.seekTo(to)
				if after := b.row().NotBefore; result.State != contract.StateWaiting || before == nil || after == nil || !after.Equal(*before) {
					t.Fatalf("%+v: waits until %v, then %v", result, before, after)
				}
				b.drive(contract.OutcomeParked)
				requests := r.Requests()[since:]
				wantAgain(t, requests, to, n)
				if early := before.Sub(requests[0].At); early > 0 {
					t.Errorf("the first request came %v before the end of the wait", early)
				}
				if len(requests) > 1 && requests[1].At.Before(requests[0].At.Add(requests[0].Took)) {
					t.Error("no probe after the wait")
				}
			})
		}
	}
}

// TestSeekAside moves the position of a subscriber with a held key and dead
// letters: those above the target come again, those below it stay.
func TestSeekAside(t *testing.T) {
	t.Parallel()
	const n, keys = 40, 10 // held: 4, 14, 24, 34
	for _, lanes := range []int{1, 8} {
		begin := func(t *testing.T) (*bundle, *picky) {
			t.Helper()
			b, p := setup(t), newPicky(t, 422, "3")
			p.slow.Store(int64(20 * time.Millisecond))
			b.publish(spread(n, keys)...)
			b.create(p.URL(), func(s *event.Subscriber) {
				s.Lanes, s.OnExhausted, s.Retry.EventAttempts = event.Count(lanes), event.OnExhaustedHold, 2
				s.Retry.Schedule = []event.Duration{event.Duration(time.Millisecond), event.Duration(time.Hour)}
			})
			b.drive(contract.OutcomeParked)
			b.exec(`INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason)
			VALUES ('acme', 6, 'Property', '5', 'skipped'), ('acme', 26, 'Property', '5', 'skipped')`)
			wantList(t, "events that wait", b.heldEvents("3"), every(4, keys, n))
			return b, p
		}
		t.Run(fmt.Sprintf("back/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := begin(t)
			since := p.Count()
			p.mend("3")
			b.seekTo(19)
			wantList(t, "events that still wait", b.heldEvents("3"), []int64{4, 14})
			wantList(t, "dead letters", deadSequences(b.deadLetters()), []int64{6})
			b.drive(contract.OutcomeParked)
			// What comes of the held key waits behind what is below.
			wantList(t, "events that wait again", b.heldEvents("3"), every(4, keys, n))
			b.moveControl(store.ControlHeldRetry, "3", 0)
			b.driveReleased()
			got := slices.Sorted(slices.Values(arrivals(t, p.Requests()[since:], all)))
			wantList(t, "accepted since", got, append([]int64{4, 14}, every(20, 1, n)...))
			wantList(t, "events of the key", p.ofKey("3"), every(4, keys, n))
			wantOrderAgain(t, p.Requests()[since:])
		})
		t.Run(fmt.Sprintf("back below all/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := begin(t)
			since := p.Count()
			p.mend("3")
			b.seekTo(3)
			if held := b.heldKeys(); len(held) > 0 || len(b.deadLetters()) > 0 {
				t.Errorf("still set aside: %+v, %+v", held, b.deadLetters())
			}
			b.drive(contract.OutcomeParked)
			wantAgain(t, p.Requests()[since:], 3, n)
			wantOrderAgain(t, p.Requests()[since:])
		})
		t.Run(fmt.Sprintf("ahead/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := begin(t)
			b.control(store.ControlPause)
			b.publish(spread(20, keys)...) // 41 to 60
			since := p.Count()
			b.seekTo(50)
			p.mend("3")
			b.control(store.ControlResume)
			b.moveControl(store.ControlHeldRetry, "3", 0)
			b.driveReleased()
			got := slices.Sorted(slices.Values(arrivals(t, p.Requests()[since:], all)))
			wantList(t, "accepted since", got, append(every(4, keys, n), every(51, 1, 60)...))
			wantList(t, "dead letters", deadSequences(b.deadLetters()), []int64{6, 26})
			wantOrderAgain(t, p.Requests()[since:])
		})
	}
}

// TestResumeAfterPause publishes much while a subscriber is paused, and more once
// it is resumed: all of it arrives in the order of the log.
func TestResumeAfterPause(t *testing.T) {
	t.Parallel()
	const missed, newer = 5000, 200
	for _, lanes := range []int{1, 8} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
			b.create(r.URL(), func(s *event.Subscriber) { s.Lanes = event.Count(lanes) })
			b.control(store.ControlPause)
			b.followAll("acme")
			for range missed / 500 {
				b.publish(properties(500)...) // each record ten times
			}
			b.control(store.ControlResume)
			r.WaitFor(t, 1, waitMax)
			for range newer {
				b.publish(event.Event{ResourceName: "Member", ResourceRecordKey: "newer"})
			}
			r.WaitAnswered(t, missed+newer, 3*waitMax)
			b.wantCursor(missed + newer)
			got := arrivals(t, r.Requests(), all)
			if lanes == 1 {
				wantSequence(t, got, missed+newer)
			}
			wantOrderAgain(t, r.Requests())
			for i, sequence := range got {
				if sequence > missed && i < missed-lanes {
					t.Fatalf("event %d arrived as number %d, before what was missed", sequence, i+1)
				}
			}
			if len(got) != missed+newer {
				t.Errorf("%d arrivals, want %d", len(got), missed+newer)
			}
		})
	}
}
