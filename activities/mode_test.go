package activities_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// switchTo changes acme's mode.
func (b *bundle) switchTo(mode string) store.ControlResult {
	b.t.Helper()
	return b.configure(func(s *event.Subscriber, _ *event.Secrets) {
		s.Mode = mode
		*s = s.Defaulted()
	})
}

func (b *bundle) pull(limit int) store.Pulled {
	b.t.Helper()
	pulled, err := b.store.Pull(b.t.Context(), store.PullRequest{Subscriber: "acme", Limit: limit, Bytes: 1 << 20})
	check(b.t, err)
	return pulled
}

// awaitPull pulls until there is something.
func (b *bundle) awaitPull(limit int) store.Pulled {
	b.t.Helper()
	var pulled store.Pulled
	testkit.Eventually(b.t, waitMax, func() bool {
		pulled = b.pull(limit)
		return len(pulled.Sequences) > 0
	}, "something is handed out")
	return pulled
}

func (b *bundle) commit(p store.Pulled, sequence int64) {
	b.t.Helper()
	_, err := b.store.Commit(b.t.Context(), store.CommitRequest{Subscriber: "acme", Sequence: sequence, Lease: p.Lease})
	check(b.t, err)
}

func ofKeys(keys ...string) []event.Event {
	events := make([]event.Event, len(keys))
	for i, key := range keys {
		events[i] = event.Event{ResourceName: "Property", ResourceRecordKey: key}
	}
	return events
}

// handled is what a consumer dealt with, in the order in which it did.
type handled struct {
	mu        sync.Mutex
	sequences []int64
}

func (h *handled) add(sequences ...int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sequences = append(h.sequences, sequences...)
}

func (h *handled) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sequences)
}

// TestSwitchModes: while events come in, the consumer changes between being sent
// them and fetching them. Each is dealt with once, those of a record in order, and
// what was handed out and not committed is sent.
func TestSwitchModes(t *testing.T) {
	t.Parallel()
	for _, lanes := range []event.Count{1, 8} {
		t.Run(fmt.Sprintf("%s lanes", lanes), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var h handled
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(_ int, r *testkit.Request) testkit.Answer {
				for _, e := range sentEvents(t, *r) {
					h.add(e.Sequence)
				}
				return testkit.Answer{}
			}})
			b.create(r.URL(), func(s *event.Subscriber) {
				s.Lanes = lanes
				s.Pull = &event.Pull{LeaseDuration: event.LeaseDurationMax, Leases: int(lanes)}
			})
			b.followAll("acme")
			const rounds, each = 8, 150
			events := stream(t, "sdk-go")[:rounds*each]
			published, allowed := make(chan struct{}), make(chan int, len(events))
			go func() {
				defer close(published)
				for i := range allowed {
					if _, err := b.log.Append(t.Context(), b.feed, events[i:i+1]); err != nil {
						t.Error(err)
						return
					}
				}
			}()
			for round := range rounds { // of fetching, then of being sent
				testkit.Eventually(t, waitMax, func() bool { return h.count() >= each*round-each/2 }, "events are dealt with")
				if round%2 == 0 {
					b.switchTo(event.ModePull)
				}
				for i := range each {
					allowed <- round*each + i
				}
				if round%2 == 1 {
					continue
				}
				p := b.awaitPull(9)
				for n := 0; len(p.Sequences) > 0 && n < 5; n++ {
					through := len(p.Sequences)
					if round%4 == 0 {
						through = (through + 1) / 2 // the rest is out when it is to be sent
					}
					h.add(p.Sequences[:through]...)
					b.commit(p, p.Sequences[through-1])
					p = b.pull(9)
				}
				b.switchTo(event.ModePush)
			}
			close(allowed)
			<-published
			testkit.Eventually(t, waitMax, func() bool { return b.row().Cursor == int64(len(events)) }, "all are dealt with")
			last, seen := map[event.Key]int64{}, map[int64]bool{}
			for _, n := range h.sequences {
				key := events[n-1].Key()
				if seen[n] || n < last[key] {
					t.Errorf("event %d is dealt with after %d of its record, again: %t", n, last[key], seen[n])
				}
				last[key], seen[n] = n, true
			}
			if len(seen) != len(events) {
				t.Errorf("%d events are dealt with, want %d", len(seen), len(events))
			}
			if len(r.Requests()) == 0 || len(r.Requests()) == len(events) {
				t.Errorf("%d requests of %d events", len(r.Requests()), len(events))
			}
		})
	}
}

// TestSwitchWaits: while a request is in flight nothing is handed out, and what it
// settles is not handed out after it.
func TestSwitchWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	answer := make(chan struct{})
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		return testkit.Answer{Until: answer}
	}})
	b.publish(ofKeys("a", "b", "c")...)
	b.create(r.URL(), nil)
	running := b.start(t.Context())
	r.WaitFor(t, 1, waitMax)
	b.wantInForce(b.switchTo(event.ModePull).Version)
	if p := b.pull(10); !p.Blocked || len(p.Sequences) > 0 {
		t.Errorf("handed out while a request was in flight: %+v", p)
	}
	close(answer)
	result := running.want(contract.OutcomePaused)
	if result.State != contract.StatePull || result.RemainingMillis != 0 || result.Reason == "" {
		t.Errorf("%+v", result)
	}
	if p := b.pull(10); !slices.Equal(p.Sequences, []int64{2, 3}) {
		t.Errorf("%+v", p)
	}
	if row := b.row(); row.Lease != nil || row.Parked || row.Runnable() {
		t.Errorf("%+v", row)
	}
}

// TestSwitchOfParked: a parked row is parked no longer, and nobody is woken for it.
func TestSwitchOfParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.publish(ofKeys("a", "b")...)
	b.create(r.URL(), nil)
	b.drive(contract.OutcomeParked)
	if result := b.switchTo(event.ModePull); !result.InForce {
		t.Error("not in force at once")
	}
	b.publish(ofKeys("c")...)
	if _, parked, err := b.store.ParkedRow(t.Context(), "acme"); err != nil || parked {
		t.Errorf("parked: %t, %v", parked, err)
	}
	if p := b.pull(10); !slices.Equal(p.Sequences, []int64{3}) {
		t.Errorf("%+v", p)
	}
	if result := b.deliver(); result.Outcome != contract.OutcomePaused {
		t.Errorf("%+v", result)
	}
	if result := b.switchTo(event.ModePush); !result.InForce {
		t.Error("not in force at once")
	}
	b.drive(contract.OutcomeParked)
	if got := arrivals(t, r.Requests(), func(testkit.Request) bool { return true }); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("sent %v", got)
	}
}

// TestSwitchAfterADeath: the lease of a run that died is taken away before anything
// is handed out.
func TestSwitchAfterADeath(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(ofKeys("a")...)
	b.create("http://127.0.0.1:9/", nil)
	b.exec(`UPDATE runs SET lease = $1`, uuid.New())
	version := b.switchTo(event.ModePull).Version
	b.exec(`UPDATE runs SET applied_version = desired_version, checked_at = clock_timestamp() - interval '2 minutes'`)
	if p := b.pull(10); !p.Blocked {
		t.Errorf("%+v", p)
	}
	if swept, err := b.store.SweepRows(t.Context(), 0, 10); err != nil || !slices.Equal(swept, []string{"acme"}) {
		t.Errorf("swept %v, %v", swept, err)
	}
	if result := b.deliver(); result.Outcome != contract.OutcomePaused {
		t.Errorf("%+v", result)
	}
	b.wantInForce(version)
	if p := b.pull(10); !slices.Equal(p.Sequences, []int64{1}) {
		t.Errorf("%+v", p)
	}
	b.exec(`UPDATE runs SET checked_at = clock_timestamp() - interval '2 minutes'`)
	if swept, err := b.store.SweepRows(t.Context(), 0, 10); err != nil || len(swept) > 0 {
		t.Errorf("swept %v, %v", swept, err)
	}
}

// TestSwitchWithHeldKeys: what waits behind held keys is handed out by its number,
// and what was accepted is not.
func TestSwitchWithHeldKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(_ int, r *testkit.Request) testkit.Answer {
		if sentEvents(t, *r)[0].Key == "bad" {
			return testkit.Answer{Status: 422}
		}
		return testkit.Answer{}
	}})
	b.publish(ofKeys("a", "bad", "b", "bad", "c", "d")...)
	b.create(r.URL(), func(s *event.Subscriber) {
		s.OnExhausted, s.Retry.EventAttempts, s.Lanes = event.OnExhaustedHold, 1, 4
	})
	b.drive(contract.OutcomeParked)
	b.switchTo(event.ModePull)
	p := b.pull(10)
	if !slices.Equal(p.Sequences, []int64{2, 4}) {
		t.Fatalf("%+v of %+v", p, b.row())
	}
	b.commit(p, 2)
	b.publish(ofKeys("e")...)
	b.switchTo(event.ModePush)
	sent := r.Count()
	r.SetScript(nil)
	b.drive(contract.OutcomeParked)
	if got := arrivals(t, r.Requests()[sent:], func(testkit.Request) bool { return true }); !slices.Equal(slices.Sorted(slices.Values(got)), []int64{4, 7}) {
		t.Errorf("sent %v", got)
	}
	if row := b.row(); row.Cursor != 7 {
		t.Errorf("%+v", row)
	}
}
