package activities_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

// replay makes a replay of acme's.
func (b *bundle) replay(r store.ReplayRequest) store.Replay {
	b.t.Helper()
	r.Subscriber, r.Source = "acme", "test"
	r.Count = func(ctx context.Context, s store.ReplayStretch) (total, first, last int64, err error) {
		return b.log.Count(ctx, s.FeedID, eventlog.Selection{After: s.After, Through: s.Through, Filter: s.Filter, Keys: s.Keys})
	}
	replay, _, err := b.store.CreateReplay(b.t.Context(), r)
	check(b.t, err)
	return replay
}

// replayRange asks for the events from one to another.
func replayRange(from, to int64) store.ReplayRequest {
	return store.ReplayRequest{FromSequence: &from, ToSequence: &to}
}

func (b *bundle) replayNow(id int64) store.Replay {
	b.t.Helper()
	replay, err := b.store.Replay(b.t.Context(), "acme", id)
	check(b.t, err)
	return replay
}

func (b *bundle) controlReplay(kind string, id int64) store.ControlResult {
	b.t.Helper()
	_, result, err := b.store.ControlReplay(b.t.Context(), "acme", id, kind, "test", "")
	check(b.t, err)
	return result
}

// ofReplay are the requests of one replay; 0: those of none.
func ofReplay(requests []testkit.Request, id int64) (list []testkit.Request) {
	want := ""
	if id > 0 {
		want = fmt.Sprint(id)
	}
	for _, r := range requests {
		if r.Header.Get("Postroad-Replay") == want {
			list = append(list, r)
		}
	}
	return list
}

// wantReplayed checks that the requests brought just these events for a replay, in
// order of their records, and then those of the log, none of which came earlier.
func wantReplayed(t *testing.T, requests []testkit.Request, id int64, want, newer []int64) {
	t.Helper()
	replayed := ofReplay(requests, id)
	wantList(t, "replayed", slices.Sorted(slices.Values(arrivals(t, replayed, all))), want)
	wantList(t, "new", slices.Sorted(slices.Values(arrivals(t, ofReplay(requests, 0), all))), newer)
	wantOrderAgain(t, replayed)
	for i, r := range requests {
		isReplay := i < len(replayed)
		if (r.Header.Get("Postroad-Replay") != "") != isReplay || strings.HasSuffix(r.Header.Get("Webhook-Id"), fmt.Sprintf("_r%d", id)) != isReplay {
			t.Errorf("request %d of %d, %d of a replay: %v", i+1, len(requests), len(replayed), r.Header)
		}
	}
}

// TestReplay sends parts of the log once more, each before what was published
// since.
func TestReplay(t *testing.T) {
	t.Parallel()
	const n, newer = 60, 10
	// Odd events are of Property, even ones of Member; keys "0" to "9" of each.
	publish := func(b *bundle, n int) {
		events := spread(n, 20)
		for i := range events {
			if i%2 == 1 {
				events[i].ResourceName = "Member"
			}
			events[i].ResourceRecordKey = fmt.Sprint(i % 20 / 2)
		}
		b.publish(events...)
	}
	at := func(b *bundle, sequence int64) *time.Time {
		var recorded time.Time
		check(b.t, b.pool.QueryRow(b.t.Context(), `SELECT recorded_at FROM events WHERE sequence = $1`, sequence).Scan(&recorded))
		return &recorded
	}
	for name, test := range map[string]struct {
		request func(*bundle) store.ReplayRequest
		filter  []string
		want    []int64
	}{
		"a range": {func(*bundle) store.ReplayRequest { return replayRange(11, 40) }, nil, every(11, 1, 40)},
		"all":     {func(*bundle) store.ReplayRequest { return store.ReplayRequest{} }, nil, every(1, 1, n)},
		"times": {func(b *bundle) store.ReplayRequest {
			return store.ReplayRequest{FromTime: at(b, 21), ToTime: at(b, 39)}
		}, nil, every(21, 1, 40)},
		"names": {func(*bundle) store.ReplayRequest {
			return store.ReplayRequest{ResourceNames: []string{"Member"}}
		}, nil, every(2, 2, n)},
		"keys": {func(*bundle) store.ReplayRequest {
			r := replayRange(5, n)
			r.Keys = []event.Key{property("3"), property("9")}
			return r
		}, nil, slices.Sorted(slices.Values(append(every(7, 20, n), every(19, 20, n)...)))},
		"what the filter lets pass": {func(*bundle) store.ReplayRequest { return replayRange(11, 40) }, []string{"Property"}, every(11, 2, 40)},
	} {
		for _, lanes := range []int{1, 8} {
			t.Run(fmt.Sprintf("%s/%d", name, lanes), func(t *testing.T) {
				t.Parallel()
				b, r := setup(t), testkit.NewReceiver(t, testkit.ReceiverOptions{})
				for range n / 20 { // of three times
					publish(b, 20)
				}
				b.exec(`UPDATE events SET recorded_at = recorded_at + (sequence - 1) / 20 * interval '1 second' - interval '1 minute'`)
				b.create(r.URL(), func(s *event.Subscriber) {
					s.Lanes, s.BatchSize, s.Filter.ResourceNames = event.Count(lanes), event.Count(3*lanes-2), test.filter
				})
				b.drive(contract.OutcomeParked)
				since := r.Count()
				replay := b.replay(test.request(b))
				publish(b, newer)
				b.drive(contract.OutcomeParked)
				later := every(n+1, 1, n+newer)
				if test.filter != nil {
					later = every(n+1, 2, n+newer)
				}
				wantReplayed(t, r.Requests()[since:], 1, test.want, later)
				replay = b.replayNow(replay.ID)
				if replay.State != store.ReplayDone || replay.Total != int64(len(test.want)) || replay.Done != replay.Total ||
					replay.StartedAt == nil || replay.FinishedAt == nil || len(replay.Settled) > 0 || replay.Cursor != replay.Through {
					t.Errorf("%+v", replay)
				}
				if row := b.row(); row.Cursor < n+newer-1 || len(row.Settled) > 0 {
					t.Errorf("%+v", row)
				}
			})
		}
	}
}

// TestReplayWhilePublishing has much published while a replay runs: nothing of it
// overtakes the replay.
func TestReplayWhilePublishing(t *testing.T) {
	t.Parallel()
	const n = 600
	for _, lanes := range []int{1, 8} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			t.Parallel()
			b, release := setup(t), make(chan struct{})
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(n+30, release)})
			b.publish(spread(n, 50)...)
			b.create(r.URL(), func(s *event.Subscriber) { s.Lanes, s.Endpoint.Timeout = event.Count(lanes), event.Duration(waitMax) })
			b.followAll("acme")
			r.WaitAnswered(t, n, waitMax)
			b.wantCursor(n)
			b.replay(store.ReplayRequest{})
			r.WaitFor(t, n+30, waitMax)
			for range 10 {
				b.publish(spread(10, 50)...)
			}
			b.replay(replayRange(n+1, n+5)) // queued behind the first, of events that are not sent yet
			close(release)
			r.WaitAnswered(t, 2*n+105, waitMax)
			b.wantCursor(n + 100)
			requests := r.Requests()
			wantReplayed(t, slices.Concat(ofReplay(requests[n:], 1), ofReplay(requests[n:], 0)), 1, every(1, 1, n), every(n+1, 1, n+100))
			wantList(t, "the second replay", slices.Sorted(slices.Values(arrivals(t, ofReplay(requests, 2), all))), every(n+1, 1, n+5))
			for i, q := range requests[n:] {
				want := ""
				switch {
				case i < n:
					want = "1"
				case i < n+5:
					want = "2"
				}
				if q.Header.Get("Postroad-Replay") != want {
					t.Fatalf("request %d since is of replay %q, want %q", i+1, q.Header.Get("Postroad-Replay"), want)
				}
			}
		})
	}
}

// TestReplayControls steers a replay while a request of it is on its way.
func TestReplayControls(t *testing.T) {
	t.Parallel()
	const n, hangs = 40, 15
	for _, lanes := range []int{1, 8} {
		begin := func(t *testing.T) (b *bundle, r *testkit.Receiver, release func()) {
			t.Helper()
			b, open := setup(t), make(chan struct{})
			r = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(i int, _ *testkit.Request) testkit.Answer {
				if i > n+hangs-lanes && i <= n+hangs {
					return testkit.Answer{Until: open}
				}
				return testkit.Answer{}
			}})
			b.publish(properties(n)...)
			b.create(r.URL(), func(s *event.Subscriber) { s.Lanes, s.Endpoint.Timeout = event.Count(lanes), event.Duration(waitMax) })
			b.drive(contract.OutcomeParked)
			b.replay(store.ReplayRequest{})
			b.publish(properties(5)...)
			b.followAll("acme")
			r.WaitFor(t, n+hangs, waitMax)
			return b, r, func() { close(open) }
		}
		t.Run(fmt.Sprintf("pause and resume/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, r, release := begin(t)
			b.wantInForce(b.controlReplay(store.ControlReplayPause, 1).Version)
			if r.Count() != n+hangs {
				t.Errorf("%d requests", r.Count())
			}
			release()
			b.wantCursor(n + 5) // a paused replay holds nothing up
			replay := b.replayNow(1)
			if replay.State != store.ReplayPaused || replay.Done != hangs || len(ofReplay(r.Requests(), 1)) != hangs {
				t.Errorf("%+v, %d requests of it", replay, len(ofReplay(r.Requests(), 1)))
			}
			b.controlReplay(store.ControlReplayResume, 1)
			testkit.Eventually(t, waitMax, func() bool { return b.replayNow(1).State == store.ReplayDone }, "the replay is over")
			wantAgain(t, ofReplay(r.Requests(), 1), 0, n)
			if replay := b.replayNow(1); replay.Done != n {
				t.Errorf("%+v", replay)
			}
			wantAgain(t, ofReplay(r.Requests(), 0)[n:], n, n+5)
		})
		t.Run(fmt.Sprintf("cancel/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, r, release := begin(t)
			b.wantInForce(b.controlReplay(store.ControlReplayCancel, 1).Version)
			release()
			b.wantCursor(n + 5)
			testkit.Eventually(t, waitMax, func() bool { return b.row().Parked }, "nothing is left")
			if replay := b.replayNow(1); replay.State != store.ReplayCancelled || replay.FinishedAt == nil {
				t.Errorf("%+v", replay)
			}
			if got := len(ofReplay(r.Requests(), 1)); got != hangs {
				t.Errorf("%d requests of a replay that was cancelled after %d", got, hangs)
			}
			wantAgain(t, ofReplay(r.Requests(), 0)[n:], n, n+5)
		})
		t.Run(fmt.Sprintf("pause of the subscriber/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, r, release := begin(t)
			b.wantInForce(b.control(store.ControlPause).Version)
			release()
			testkit.Eventually(t, waitMax, func() bool { return b.row().Lease == nil }, "the run has ended")
			if r.Count() != n+hangs {
				t.Errorf("%d requests while paused", r.Count()-n-hangs)
			}
			b.control(store.ControlResume)
			b.wantCursor(n + 5)
			wantReplayed(t, r.Requests()[n:], 1, every(1, 1, n), every(n+1, 1, n+5))
		})
	}
}

// TestReplayHeld replays a key that is refused then: what was replayed of it and
// what is new waits in one order, and says what it was sent for.
func TestReplayHeld(t *testing.T) {
	t.Parallel()
	const n, keys = 60, 10 // of the key: 4, 14, ..., 54, then 64
	for _, lanes := range []int{1, 8} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			t.Parallel()
			b, p := setup(t), newPicky(t, 422)
			b.publish(spread(n, keys)...)
			b.create(p.URL(), func(s *event.Subscriber) {
				heldSteps(s)
				s.Lanes, s.OnExhausted = event.Count(lanes), event.OnExhaustedHold
			})
			b.drive(contract.OutcomeParked)
			p.slow.Store(int64(20 * time.Millisecond))
			p.refuses.Store("3", true)
			b.replay(replayRange(11, 50))
			b.publish(spread(keys, keys)...)
			since := p.Count()
			b.drive(contract.OutcomeParked)
			wantList(t, "events that wait", b.heldEvents("3"), []int64{14, 24, 34, 44, 64})
			replay := b.replayNow(1)
			if replay.State != store.ReplayDone || replay.Done != 40 {
				t.Errorf("%+v", replay)
			}
			if floor := b.retain(); floor != 13 {
				t.Errorf("the log was removed up to %d, want 13", floor)
			}
			p.mend("3")
			b.driveReleased()
			requests := p.Requests()[since:]
			wantKeyOrder(t, requests, p.accepted, 50)
			var replayed, newer []int64
			replayed = arrivals(t, ofReplay(requests, 1), p.accepted)
			newer = arrivals(t, ofReplay(requests, 0), p.accepted)
			wantList(t, "replayed", slices.Sorted(slices.Values(replayed)), every(11, 1, 50))
			wantList(t, "new", slices.Sorted(slices.Values(newer)), every(n+1, 1, n+keys))
			if len(b.deadLetters()) > 0 || b.row().Cursor != n+keys {
				t.Errorf("%+v, %+v", b.deadLetters(), b.row())
			}
		})
	}
}

// TestReplayKilled kills the process in the middle of a replay.
func TestReplayKilled(t *testing.T) {
	t.Parallel()
	const n, newer = 4000, 50
	for _, lanes := range []int{1, 8} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			t.Parallel()
			b, r := setup(t), testkit.NewReceiver(t, testkit.ReceiverOptions{})
			for range n / 500 {
				b.publish(properties(500)...)
			}
			b.create(r.URL(), func(s *event.Subscriber) { s.Start, s.Lanes = event.Start{Where: "now"}, event.Count(lanes) })
			b.exec(`UPDATE runs SET cursor = $1`, n)
			b.replay(store.ReplayRequest{})
			b.publish(properties(newer)...)
			for _, at := range []int{1000, 2500} {
				kill := b.spawn()
				r.WaitFor(t, at, waitMax)
				kill()
			}
			b.drive(contract.OutcomeParked)
			requests := r.Requests()
			replayed := arrivals(t, ofReplay(requests, 1), all)
			times := map[int64]int{}
			for _, sequence := range replayed {
				times[sequence]++
			}
			if repeats := len(replayed) - n; len(times) != n || repeats > 2*(500+lanes) {
				t.Errorf("%d of %d events, %d repeats", len(times), n, repeats)
			}
			if lanes == 1 {
				wantRepeats(t, replayed, n, 2, 501)
			}
			t.Logf("%d repeats after two kills", len(replayed)-n)
			wantAgain(t, requests[len(replayed):], n, n+newer)
			if replay := b.replayNow(1); replay.State != store.ReplayDone || replay.Done != n {
				t.Errorf("%+v", replay)
			}
		})
	}
}
