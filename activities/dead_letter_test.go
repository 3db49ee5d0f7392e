package activities_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// TestSkip gives up the events that a consumer refuses, and brings them again.
func TestSkip(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 16} {
		for _, batch := range []int{1, 100} {
			t.Run(fmt.Sprintf("%d lanes of %d", lanes, batch), func(t *testing.T) {
				t.Parallel()
				testSkip(t, lanes, batch)
			})
		}
	}
}

func testSkip(t *testing.T, lanes, batch int) {
	const n, keys = 100, 20 // the refused ones: 4, 24, ..., 84 and 10, 30, ..., 90
	b, p := setup(t), newPicky(t, 418, "3", "9")
	p.slow.Store(int64(time.Millisecond))
	b.publish(spread(n, keys)...)
	b.create(p.URL(), func(s *event.Subscriber) {
		s.Lanes, s.BatchSize, s.OnExhausted, s.Retry.EventAttempts = event.Count(lanes), event.Count(batch), event.OnExhaustedSkip, 3
		s.Retry.Schedule = []event.Duration{event.Duration(time.Millisecond)}
	})
	b.drive(contract.OutcomeParked)
	total := n + b.driveDead(10)
	given := slices.Sorted(slices.Values(append(every(4, keys, n), every(10, keys, n)...)))
	wantKeyOrder(t, p.Requests(), p.accepted, total-len(given))
	dead := b.deadLetters()
	wantList(t, "dead letters", deadSequences(dead), given)
	for _, d := range dead {
		if d.Reason != store.DeadExhausted || d.Attempts < 3 || d.LastStatus != 418 || d.LastError != "HTTP 418 from the consumer" || d.Replay != 0 || d.Source != "" {
			t.Errorf("dead letter: %+v", d)
		}
	}
	if row := b.row(); row.Cursor != int64(total) || len(row.Settled) > 0 || len(row.FailingEvents) > 0 || row.WakeAt != nil {
		t.Errorf("skipped: %+v", row)
	}
	if floor := b.retain(); floor != 3 {
		t.Errorf("the log was removed up to %d, want 3", floor)
	}

	// One of the two is mended: what it missed leaves the list, the other stays.
	p.mend("9")
	accepted, since := len(p.got()), p.Count()
	replay := b.replay(store.ReplayRequest{Missed: true})
	b.drive(contract.OutcomeParked)
	if replay = b.replayNow(replay.ID); replay.State != store.ReplayDone || replay.Done != int64(len(given)) || replay.Total != replay.Done {
		t.Errorf("%+v", replay)
	}
	wantList(t, "brought again", slices.Sorted(slices.Values(p.got()[accepted:])), every(10, keys, n))
	wantList(t, "events of the mended key", p.ofKey("9"), every(10, keys, n))
	for _, r := range p.Requests()[since:] {
		if r.Header.Get("Postroad-Replay") != "1" {
			t.Fatalf("a request without the number of the replay: %v", r.Header)
		}
	}
	dead = b.deadLetters()
	wantList(t, "still dead", deadSequences(dead), every(4, keys, n))
	for _, d := range dead {
		if d.Attempts < 3 || d.LastStatus != 418 || d.Reason != store.DeadExhausted {
			t.Errorf("refused again: %+v", d)
		}
	}

	// Dismissed ones are not brought, the others are.
	if n, err := b.store.DismissDeadLetters(t.Context(), "acme", []int64{4, 24}); err != nil || n != 2 {
		t.Errorf("%d dismissed, %v", n, err)
	}
	p.mend("3")
	b.replay(store.ReplayRequest{Missed: true})
	b.drive(contract.OutcomeParked)
	wantList(t, "events of the other key", p.ofKey("3"), every(44, keys, n))
	if dead := b.deadLetters(); len(dead) > 0 {
		t.Errorf("in the end: %+v", dead)
	}
	wantKeyOrder(t, p.Requests(), p.accepted, total-2)
	if got := len(p.got()); got != total-2 {
		t.Errorf("%d events were accepted, %d of them twice", got, got-total+2)
	}
	if floor := b.retain(); floor != int64(total) {
		t.Errorf("in the end the log was removed up to %d", floor)
	}
}

// driveDead delivers until so many events were given up, and returns how many it
// had to publish for it: those refused last wait for one of another key, which
// shows whose fault it is.
func (b *bundle) driveDead(n int) (published int) {
	b.t.Helper()
	for len(b.deadLetters()) < n && published < 10 {
		b.publish(spread(1, 1)...)
		published++
		b.drive(contract.OutcomeParked)
	}
	return published
}

// TestSkipHalted skips the event that a subscriber is halted at.
func TestSkipHalted(t *testing.T) {
	t.Parallel()
	const n, keys = 40, 10
	halting := func(t *testing.T, lanes int) (*bundle, *picky) {
		t.Helper()
		b, p := setup(t), newPicky(t, 422)
		b.publish(spread(n, keys)...)
		b.create(p.URL(), func(s *event.Subscriber) { s.Lanes, s.Retry.EventAttempts = event.Count(lanes), 2 })
		return b, p
	}
	for _, lanes := range []int{1, 8} {
		t.Run(fmt.Sprintf("in the log/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := halting(t, lanes)
			p.refuses.Store("4", true)
			for _, at := range every(5, keys, n) {
				result := b.drive(contract.OutcomeHalted, contract.OutcomeParked)
				if row := b.row(); result.Outcome != contract.OutcomeHalted || row.HaltedEvent != at || row.HaltedReplay != 0 {
					t.Fatalf("%+v, %+v", result, row)
				}
				if !b.moveControl(store.ControlSkip, "", at).InForce {
					t.Error("nobody holds the lease, but the skip is not in force")
				}
			}
			b.drive(contract.OutcomeParked)
			wantKeyOrder(t, p.Requests(), p.accepted, n-n/keys)
			dead := b.deadLetters()
			wantList(t, "dead letters", deadSequences(dead), every(5, keys, n))
			for _, d := range dead {
				if d.Reason != store.DeadSkipped || d.Source != "test" || d.LastError != "HTTP 422 from the consumer" {
					t.Errorf("dead letter: %+v", d)
				}
			}
			if got := len(p.got()); got != n-n/keys {
				t.Errorf("%d events accepted, want %d", got, n-n/keys)
			}
			if row := b.row(); row.Cursor != n || len(row.Settled) > 0 {
				t.Errorf("%+v", row)
			}
		})
		t.Run(fmt.Sprintf("in a replay/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := halting(t, lanes)
			b.drive(contract.OutcomeParked)
			p.refuses.Store("4", true)
			b.replay(replayRange(11, 30))
			b.publish(spread(keys, keys)...) // 41 to 50, behind the replay
			since := p.Count()
			for _, at := range []int64{15, 25} {
				result := b.drive(contract.OutcomeHalted, contract.OutcomeParked)
				row := b.row()
				if result.Outcome != contract.OutcomeHalted || row.HaltedEvent != at || row.HaltedReplay != 1 || row.Cursor != n {
					t.Fatalf("%+v, %+v", result, row)
				}
				b.moveControl(store.ControlSkip, "", at)
			}
			p.mend("4")
			b.drive(contract.OutcomeParked)
			got := slices.Sorted(slices.Values(arrivals(t, p.Requests()[since:], p.accepted)))
			want := slices.DeleteFunc(append(every(11, 1, 30), every(n+1, 1, n+keys)...), func(s int64) bool { return s == 15 || s == 25 })
			wantList(t, "accepted since the replay", got, want)
			wantList(t, "dead letters", deadSequences(b.deadLetters()), []int64{15, 25})
			if replay := b.replayNow(1); replay.State != store.ReplayDone || replay.Done != replay.Total || replay.Total != 20 {
				t.Errorf("%+v", replay)
			}
		})
	}
}

// steps has the database note each position that is written: the cursor, the
// ranges above it, and how much is set aside with it.
func (b *bundle) steps() (read func() []step) {
	b.t.Helper()
	b.exec(`CREATE TABLE steps (n bigserial, cursor bigint, settled bigint[], held bigint[], dead bigint[]);
		CREATE FUNCTION note_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		    INSERT INTO steps (cursor, settled, held, dead) VALUES (NEW.cursor, NEW.settled,
		        coalesce((SELECT array_agg(sequence ORDER BY sequence) FROM held_events), '{}'),
		        coalesce((SELECT array_agg(sequence ORDER BY sequence) FROM dead_letters), '{}'));
		    RETURN NULL;
		END $$;
		CREATE TRIGGER note_step AFTER UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION note_step()`)
	return func() (list []step) {
		rows, err := b.pool.Query(b.t.Context(), `SELECT cursor, settled, held, dead FROM steps ORDER BY n`)
		check(b.t, err)
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[step])
		check(b.t, err)
		return list
	}
}

type step struct {
	Cursor              int64
	Settled, Held, Dead []int64
}

// dealt says whether the step has an event behind it.
func (s step) dealt(sequence int64) bool {
	if sequence <= s.Cursor {
		return true
	}
	for i := 0; i < len(s.Settled); i += 2 {
		if s.Settled[i] <= sequence && sequence <= s.Settled[i+1] {
			return true
		}
	}
	return false
}

// TestTrial looks at how it is found out whether an event or the endpoint is at
// fault, where all that was sent since was refused.
func TestTrial(t *testing.T) {
	t.Parallel()
	const attempts = 3
	begin := func(t *testing.T, policy string, lanes int, events ...event.Event) (*bundle, *picky) {
		t.Helper()
		b, p := setup(t), newPicky(t, 500, "bad")
		b.publish(events...)
		b.create(p.URL(), func(s *event.Subscriber) {
			s.OnExhausted, s.Retry.EventAttempts, s.Lanes = policy, attempts, event.Count(lanes)
			s.Retry.Schedule = []event.Duration{event.Duration(time.Millisecond), event.Duration(time.Millisecond), event.Duration(100 * time.Millisecond)}
		})
		return b, p
	}
	of := func(keys ...string) (events []event.Event) {
		for _, key := range keys {
			events = append(events, event.Event{ResourceName: "Property", ResourceRecordKey: key})
		}
		return events
	}
	for _, policy := range []string{event.OnExhaustedHold, event.OnExhaustedSkip} {
		t.Run("accepted/"+policy, func(t *testing.T) {
			t.Parallel()
			b, p := begin(t, policy, 1, of("bad", "bad", "a", "b")...)
			read := b.steps()
			b.drive(contract.OutcomeParked)
			// The trial passes by the second one of the key.
			want := []int64{1, 1, 1, 3, 2, 2, 2, 4, 4}
			if policy == event.OnExhaustedHold {
				want = []int64{1, 1, 1, 3, 4}
			}
			got := arrivals(t, p.Requests(), all)
			if policy == event.OnExhaustedHold {
				got = slices.DeleteFunc(got, func(s int64) bool { return s == 1 })
				got = append([]int64{1, 1, 1}, got...) // it goes on being tried
			} else {
				want = []int64{1, 1, 1, 3, 2, 2, 2, 4}
			}
			wantList(t, "requests", got, want)
			seen := false
			for _, s := range read() {
				aside := slices.Contains(s.Held, 1) || slices.Contains(s.Dead, 1)
				if s.dealt(3) != aside {
					t.Errorf("the trial is not settled together with what it frees: %+v", s)
				}
				seen = seen || aside
			}
			if !seen {
				t.Error("no position says so")
			}
		})
		for _, status := range []int{500, 503, 408} {
			t.Run(fmt.Sprintf("answered %d/%s", status, policy), func(t *testing.T) {
				t.Parallel()
				b, p := begin(t, policy, 1, of("bad", "a", "b")...)
				p.SetScript(func(n int, r *testkit.Request) testkit.Answer {
					if sentEvents(t, *r)[0].Key == "bad" {
						return p.note(n, testkit.Answer{Status: 500})
					}
					return p.note(n, testkit.Answer{Status: status})
				})
				b.followAll("acme")
				p.WaitFor(t, 12, waitMax)
				if row := b.row(); row.Cursor != 0 || len(row.Settled) > 0 || row.HaltedReason != nil {
					t.Errorf("%+v", row)
				}
				if len(b.heldKeys()) > 0 || len(b.deadLetters()) > 0 {
					t.Error("something was set aside")
				}
				for _, s := range arrivals(t, p.Requests(), all) {
					if s > 2 {
						t.Fatalf("event %d was tried too", s)
					}
				}
				p.mend("bad")
				p.SetScript(p.answer)
				b.wantCursor(3)
				wantSequence(t, p.got(), 3)
			})
		}
		t.Run("no other key/"+policy, func(t *testing.T) {
			t.Parallel()
			for _, lanes := range []int{1, 4} {
				b, p := begin(t, policy, lanes, of("bad", "bad", "bad")...)
				b.followAll("acme")
				p.WaitFor(t, 8, waitMax)
				if row := b.row(); row.Cursor != 0 || row.HaltedReason != nil || len(b.heldKeys()) > 0 || len(b.deadLetters()) > 0 {
					t.Errorf("%+v", row)
				}
				p.mend("bad")
				b.wantCursor(3)
				wantSequence(t, p.got(), 3)
			}
		})
		// All lanes are kept by events that are refused: only a trial can tell.
		t.Run("every lane/"+policy, func(t *testing.T) {
			t.Parallel()
			const lanes = 16
			keys := []string{"bad"}
			for i := range lanes - 1 {
				keys = append(keys, fmt.Sprintf("bad%d", i))
			}
			bad := keys[:lanes:lanes]
			for i := range 30 {
				keys = append(keys, fmt.Sprintf("good%d", i))
			}
			b, p := begin(t, policy, lanes, of(keys...)...)
			for _, key := range bad {
				p.refuses.Store(key, true)
			}
			b.drive(contract.OutcomeParked)
			wantList(t, "accepted", slices.Sorted(slices.Values(p.got())), every(lanes+1, 1, lanes+30))
			aside := len(b.heldKeys()) + len(b.deadLetters())
			if row := b.row(); aside != lanes || row.Cursor != int64(len(keys)) {
				t.Errorf("%d set aside, want %d: %+v", aside, lanes, row)
			}
			if most := p.MaxInFlight(); most > lanes {
				t.Errorf("%d requests at once", most)
			}
		})
	}
}

// wantCursor waits until the position is there.
func (b *bundle) wantCursor(sequence int64) {
	b.t.Helper()
	testkit.Eventually(b.t, waitMax, func() bool { return b.row().Cursor == sequence }, fmt.Sprintf("the position is %d", sequence))
}
