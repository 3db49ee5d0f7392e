package activities_test

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// spread are n events of so many keys, in turn: "0", "1" and on.
func spread(n, keys int) []event.Event {
	events := properties(n)
	for i := range events {
		events[i].ResourceRecordKey = strconv.Itoa(i % keys)
	}
	return events
}

func property(key string) event.Key {
	return event.Key{ResourceName: "Property", ResourceRecordKey: key}
}

// picky is a consumer that refuses the events of some keys until it is mended.
type picky struct {
	*testkit.Receiver
	answers
	t       *testing.T
	status  int
	refuses sync.Map     // of keys
	slow    atomic.Int64 // nanoseconds that it thinks before it accepts
	refused atomic.Int64 // requests
}

func newPicky(t *testing.T, status int, keys ...string) *picky {
	t.Helper()
	p := &picky{t: t, status: status}
	for _, key := range keys {
		p.refuses.Store(key, true)
	}
	p.Receiver = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: p.answer})
	return p
}

func (p *picky) answer(n int, r *testkit.Request) testkit.Answer {
	answer := testkit.Answer{Hang: time.Duration(p.slow.Load())}
	for _, e := range sentEvents(p.t, *r) {
		if _, refused := p.refuses.Load(e.Key); refused {
			answer = testkit.Answer{Status: p.status}
			p.refused.Add(1)
			break
		}
	}
	return p.note(n, answer)
}

func (p *picky) mend(keys ...string) {
	for _, key := range keys {
		p.refuses.Delete(key)
	}
}

// got are the accepted sequences, in order of arrival.
func (p *picky) got() []int64 { return arrivals(p.t, p.Requests(), p.accepted) }

// ofKey are the accepted sequences of one key, in order of arrival.
func (p *picky) ofKey(key string) (list []int64) {
	for _, r := range p.Requests() {
		if !p.accepted(r) {
			continue
		}
		for _, e := range sentEvents(p.t, r) {
			if e.Key == key {
				list = append(list, e.Sequence)
			}
		}
	}
	return list
}

// heldSteps is a schedule that exhausts quickly, and whose last step is longer
// than a run lingers.
func heldSteps(s *event.Subscriber) {
	s.Retry.EventAttempts = 3
	s.Retry.Schedule = []event.Duration{event.Duration(5 * time.Millisecond), event.Duration(5 * time.Millisecond), event.Duration(600 * time.Millisecond)}
}

func (b *bundle) heldKeys() []store.HeldKey {
	b.t.Helper()
	keys, err := b.store.HeldKeys(b.t.Context(), "acme", event.Key{}, 100)
	check(b.t, err)
	return keys
}

func (b *bundle) heldEvents(key string) (list []int64) {
	b.t.Helper()
	events, err := b.store.HeldEvents(b.t.Context(), "acme", property(key), 0, store.AsidePageMax)
	check(b.t, err)
	for _, e := range events {
		list = append(list, e.Sequence)
	}
	return list
}

func (b *bundle) deadLetters() []store.DeadLetter {
	b.t.Helper()
	dead, err := b.store.DeadLetters(b.t.Context(), "acme", 0, store.AsidePageMax)
	check(b.t, err)
	return dead
}

func deadSequences(dead []store.DeadLetter) (list []int64) {
	for _, d := range dead {
		list = append(list, d.Sequence)
	}
	return list
}

// retain has the log remove all that nobody is owed any more, and returns up to
// where that is.
func (b *bundle) retain() (floor int64) {
	b.t.Helper()
	b.exec(`UPDATE events SET recorded_at = clock_timestamp() - interval '1 hour'`)
	b.exec(`UPDATE feeds SET retention_age_ms = 60000`)
	check(b.t, b.log.Retain(b.t.Context(), 100_000))
	check(b.t, b.pool.QueryRow(b.t.Context(), `SELECT floor_sequence FROM feeds WHERE id = $1`, b.feed.ID).Scan(&floor))
	return floor
}

// every returns from, from+step, ... up to most.
func every(from, step, most int64) (list []int64) {
	for n := from; n <= most; n += step {
		list = append(list, n)
	}
	return list
}

func wantList(t *testing.T, what string, got, want []int64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (b *bundle) moveControl(kind, key string, sequence int64) store.ControlResult {
	b.t.Helper()
	result, err := b.store.Control(b.t.Context(), store.ControlRequest{
		Subscriber: "acme", Kind: kind, Key: property(key), Sequence: sequence, Source: "test",
	})
	check(b.t, err)
	return result
}

// driveReleased delivers until no key is held any more and nothing is left.
func (b *bundle) driveReleased() {
	b.t.Helper()
	for deadline := time.Now().Add(waitMax); ; {
		b.drive(contract.OutcomeParked)
		row := b.row()
		if len(b.heldKeys()) == 0 && row.WakeAt == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("still held: %+v, %+v", b.heldKeys(), row)
		}
		if row.WakeAt != nil {
			testkit.Eventually(b.t, waitMax, func() bool { row := b.row(); return row.WakeAt == nil || !row.WakeAt.After(row.Now) }, "it is due")
		}
	}
}

// TestHeld has a consumer refuse one key out of twenty. All others go on, those
// of the key wait in order until the consumer is mended.
func TestHeld(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 16} {
		for _, batch := range []int{1, 100} {
			t.Run(fmt.Sprintf("%d lanes of %d", lanes, batch), func(t *testing.T) {
				t.Parallel()
				testHeld(t, lanes, batch)
			})
		}
	}
}

func testHeld(t *testing.T, lanes, batch int) {
	const n, keys = 400, 20
	b, p := setup(t), newPicky(t, 422, "7")
	b.publish(spread(n, keys)...)
	b.create(p.URL(), func(s *event.Subscriber) {
		heldSteps(s)
		s.Lanes, s.BatchSize, s.OnExhausted = event.Count(lanes), event.Count(batch), event.OnExhaustedHold
	})
	result := b.drive(contract.OutcomeParked)
	if result.RemainingMillis <= 0 || result.RemainingMillis > 700 {
		t.Errorf("parked for %d ms with a held key", result.RemainingMillis)
	}
	wantKeyOrder(t, p.Requests(), p.accepted, n-n/keys)
	row := b.row()
	if !row.Parked || row.WakeAt == nil || row.Cursor != n || row.NotBefore != nil || row.HaltedReason != nil {
		t.Errorf("with a held key: %+v", row)
	}
	held := b.heldKeys()
	if len(held) != 1 || held[0].Key != property("7") || held[0].Events != n/keys || held[0].FirstSequence != 8 ||
		held[0].Attempts < 3 || held[0].LastStatus != 422 || held[0].LastError == "" || held[0].NotBefore == nil {
		t.Fatalf("held: %+v", held)
	}
	wantList(t, "events that wait", b.heldEvents("7"), every(8, keys, n))
	if floor := b.retain(); floor != 7 {
		t.Errorf("the log was removed up to %d, want 7", floor)
	}

	// More comes, while it comes back for the key, and for its first event alone.
	since := p.Count()
	b.publish(spread(2*keys, keys)...)
	b.drive(contract.OutcomeParked)
	wantKeyOrder(t, p.Requests(), p.accepted, n+2*keys-n/keys-2)
	before := b.heldKeys()[0]
	testkit.Eventually(t, waitMax, func() bool { row := b.row(); return !row.WakeAt.After(row.Now) }, "the key is due")
	b.drive(contract.OutcomeParked)
	if after := b.heldKeys()[0]; after.Attempts <= before.Attempts || after.Events != n/keys+2 {
		t.Errorf("it did not come back for the key: %+v, then %+v", before, after)
	}

	for _, r := range p.Requests()[since:] {
		if events := sentEvents(t, r); !p.accepted(r) && (len(events) > 1 || events[0].Sequence != 8) {
			t.Errorf("%v was tried while its key was held", events)
		}
	}

	p.mend("7")
	refused := p.refused.Load()
	b.driveReleased()
	b.publish(spread(keys, keys)...)
	b.drive(contract.OutcomeParked)
	const total = n + 3*keys
	wantKeyOrder(t, p.Requests(), p.accepted, total)
	wantList(t, "events of the key", p.ofKey("7"), every(8, keys, total))
	if len(p.got()) != total || p.refused.Load() != refused {
		t.Errorf("%d events accepted, %d of them twice, %d refused by a mended consumer", len(p.got()), len(p.got())-total, p.refused.Load()-refused)
	}
	row = b.row()
	if row.Cursor != total || len(row.Settled) > 0 || row.WakeAt != nil || row.EventAttempt != 0 || len(b.deadLetters()) > 0 {
		t.Errorf("in the end: %+v", row)
	}
	if floor := b.retain(); floor != total {
		t.Errorf("in the end the log was removed up to %d", floor)
	}
	if most := p.MaxInFlight(); most > lanes {
		t.Errorf("%d requests at once in %d lanes", most, lanes)
	}
}

// TestHeldControls steers a held key: at rest, and while a request of it is on
// its way, which the control then cannot undo.
func TestHeldControls(t *testing.T) {
	t.Parallel()
	const keys, n = 4, 40 // the key's: 3, 7, ... 39
	// begin leads to a held key that is not due for long.
	begin := func(t *testing.T, lanes int) (*bundle, *picky) {
		t.Helper()
		b, p := setup(t), newPicky(t, 500, "2")
		p.slow.Store(int64(20 * time.Millisecond)) // else all may be accepted before the first refusal
		b.publish(spread(n, keys)...)
		b.create(p.URL(), func(s *event.Subscriber) {
			s.Lanes, s.OnExhausted, s.Retry.EventAttempts = event.Count(lanes), event.OnExhaustedHold, 2
			s.Retry.Schedule = []event.Duration{event.Duration(time.Millisecond), event.Duration(time.Hour)}
			s.Endpoint.Timeout = event.Duration(waitMax)
		})
		b.drive(contract.OutcomeParked)
		wantList(t, "events that wait", b.heldEvents("2"), every(3, keys, n))
		return b, p
	}
	for _, lanes := range []int{1, 16} {
		t.Run(fmt.Sprintf("at rest/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := begin(t, lanes)
			if !b.moveControl(store.ControlHeldRetry, "2", 0).InForce || b.heldKeys()[0].NotBefore != nil {
				t.Error("the key is not due at once")
			}
			b.drive(contract.OutcomeParked)
			if held := b.heldKeys(); held[0].Attempts != 3 || held[0].NotBefore == nil {
				t.Errorf("after a retry that was refused: %+v", held)
			}
			b.moveControl(store.ControlHeldSkip, "2", 3)
			p.mend("2")
			b.driveReleased()
			wantList(t, "events of the key", p.ofKey("2"), every(7, keys, n))
			dead := b.deadLetters()
			if len(dead) != 1 || dead[0].Sequence != 3 || dead[0].Reason != store.DeadSkipped || dead[0].Attempts != 3 ||
				dead[0].LastStatus != 500 || dead[0].Source != "test" {
				t.Errorf("dead letters: %+v", dead)
			}
			wantKeyOrder(t, p.Requests(), p.accepted, n-1)
		})
		t.Run(fmt.Sprintf("released/%d", lanes), func(t *testing.T) {
			t.Parallel()
			b, p := begin(t, lanes)
			b.moveControl(store.ControlHeldRelease, "2", 0)
			p.mend("2")
			b.publish(spread(keys, keys)...)
			b.driveReleased()
			wantList(t, "events of the key", p.ofKey("2"), []int64{n + 3})
			wantList(t, "dead letters", deadSequences(b.deadLetters()), every(3, keys, n))
			wantKeyOrder(t, p.Requests(), p.accepted, n+keys-n/keys)
		})
	}
	for _, test := range []struct {
		kind     string
		status   int // of the request in flight
		lanes    int
		got      []int64 // of the key
		dead     []int64
		requests int // of the event in flight
	}{
		{store.ControlHeldRetry, 0, 1, every(3, keys, n), nil, 1},
		{store.ControlHeldRetry, 500, 16, every(3, keys, n), nil, 2},
		// One that was accepted meanwhile is not given up, nor is the next one.
		{store.ControlHeldSkip, 0, 16, every(3, keys, n), nil, 1},
		{store.ControlHeldSkip, 500, 1, every(7, keys, n), []int64{3}, 1},
		{store.ControlHeldRelease, 0, 1, []int64{3}, every(7, keys, n), 1},
		{store.ControlHeldRelease, 500, 16, nil, every(3, keys, n), 1},
	} {
		t.Run(fmt.Sprintf("%s in flight/%d", test.kind, test.status), func(t *testing.T) {
			t.Parallel()
			b, p := begin(t, test.lanes)
			release, before := make(chan struct{}), p.Count()
			p.SetScript(func(n int, _ *testkit.Request) testkit.Answer {
				if n == before+1 {
					return p.note(n, testkit.Answer{Status: test.status, Until: release})
				}
				return p.note(n, testkit.Answer{})
			})
			b.moveControl(store.ControlHeldRetry, "2", 0)
			b.followAll("acme")
			p.WaitFor(t, before+1, waitMax)
			version := b.moveControl(test.kind, "2", 0).Version
			b.wantGateClosed(version)
			if inForce, err := b.store.InForce(t.Context(), "acme", version); err != nil || inForce {
				t.Errorf("in force while the request hangs: %v", err)
			}
			close(release)
			b.wantInForce(version)
			testkit.Eventually(t, waitMax, func() bool { return len(b.heldKeys()) == 0 && b.row().Parked }, "nothing is held")
			wantList(t, "events of the key", p.ofKey("2"), test.got)
			wantList(t, "dead letters", deadSequences(b.deadLetters()), test.dead)
			wantKeyOrder(t, p.Requests(), p.accepted, n-n/keys+len(test.got))
			times := 0
			for _, r := range p.Requests()[before:] {
				if sentEvents(t, r)[0].Sequence == 3 {
					times++
				}
			}
			if times != test.requests {
				t.Errorf("event 3 came %d times since, want %d", times, test.requests)
			}
		})
	}
}

// TestHeldBounds fills what may be set aside: there the subscriber halts, and a
// skip of the event goes on.
func TestHeldBounds(t *testing.T) {
	t.Parallel()
	const n, keys = 12, 4
	for _, test := range []struct {
		name, fill, reason string
		at                 int64
		policy             func(p *picky)
	}{
		{
			"keys", `INSERT INTO held_keys (subscriber, resource_name, resource_key, not_before)
			SELECT 'acme', 'Member', i::text, clock_timestamp() + interval '1 day' FROM generate_series(1, 1000) i`,
			"halted: event 2 (Property) was refused 2 times, and 1000 keys are held already, the most there may be", 2, func(*picky) {},
		},
		{
			"events", `INSERT INTO held_keys (subscriber, resource_name, resource_key, not_before)
			VALUES ('acme', 'Property', '1', clock_timestamp() + interval '1 day')`,
			"halted: event 2 would have to wait behind a held key, but 100000 held events are the most there may be", 2, func(p *picky) { p.mend("1") },
		},
		{
			"events of a new key", ``,
			"halted: event 2 would have to wait behind a held key, but 100000 held events are the most there may be", 2, func(*picky) {},
		},
	} {
		for _, lanes := range []int{1, 16} {
			t.Run(fmt.Sprintf("%s/%d", test.name, lanes), func(t *testing.T) {
				t.Parallel()
				b, p := setup(t), newPicky(t, 422, "1")
				p.slow.Store(int64(20 * time.Millisecond))
				test.policy(p)
				b.publish(spread(n, keys)...)
				b.create(p.URL(), func(s *event.Subscriber) {
					s.Lanes, s.OnExhausted, s.Retry.EventAttempts = event.Count(lanes), event.OnExhaustedHold, 2
				})
				if test.fill != "" {
					b.exec(test.fill)
				}
				most := 100_000
				if test.name == "keys" {
					most = 1000 // one each
					b.exec(`INSERT INTO held_events (subscriber, sequence, resource_name, resource_key)
					SELECT 'acme', 1000 + i, 'Member', i::text FROM generate_series(1, 1000) i`)
				} else {
					key := map[bool]string{true: "1", false: "other"}[test.name == "events"]
					b.exec(`INSERT INTO held_events (subscriber, sequence, resource_name, resource_key)
					SELECT 'acme', 1000 + i, 'Property', $1 FROM generate_series(1, $2::int) i`, key, most)
					b.exec(`INSERT INTO held_keys (subscriber, resource_name, resource_key, not_before)
					VALUES ('acme', 'Property', $1, clock_timestamp() + interval '1 day') ON CONFLICT DO NOTHING`, key)
				}
				result := b.drive(contract.OutcomeHalted, contract.OutcomeParked)
				if result.Outcome != contract.OutcomeHalted || result.Reason != test.reason {
					t.Fatalf("%+v", result)
				}
				if row := b.row(); row.HaltedEvent != test.at || row.Cursor >= test.at {
					t.Errorf("halted: %+v", row)
				}
				b.wantHeldCount(most)
				p.mend("1")
				b.moveControl(store.ControlSkip, "", test.at)
				if test.name == "events" {
					// The next one of the key has no place either.
					result := b.drive(contract.OutcomeHalted, contract.OutcomeParked)
					if row := b.row(); result.Outcome != contract.OutcomeHalted || row.HaltedEvent != test.at+keys {
						t.Errorf("skipped: %+v, %+v", result, row)
					}
					return
				}
				b.drive(contract.OutcomeParked)
				wantList(t, "dead letters", deadSequences(b.deadLetters()), []int64{test.at})
				wantKeyOrder(t, p.Requests(), p.accepted, n-1)
				b.wantHeldCount(most)
			})
		}
	}
}

// wantGateClosed waits until whoever holds the lease has seen a control.
func (b *bundle) wantGateClosed(version int64) {
	b.t.Helper()
	testkit.Eventually(b.t, time.Second, func() bool { return b.row().AppliedVersion >= version }, "the gate is closed")
}

func (b *bundle) wantHeldCount(want int) {
	b.t.Helper()
	var n int
	check(b.t, b.pool.QueryRow(b.t.Context(), `SELECT count(*) FROM held_events`).Scan(&n))
	if n != want {
		b.t.Errorf("%d events are held, want %d", n, want)
	}
}
