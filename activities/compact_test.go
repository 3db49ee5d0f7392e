package activities_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// TestCompactCatchUp has a subscriber fall far behind: it gets the newest event of
// each record, which says how many older ones it stands for. Once it has caught up
// it gets every event again.
func TestCompactCatchUp(t *testing.T) {
	t.Parallel()
	const n, keys = 5000, 50
	compacted := func(r testkit.Request) int {
		count, _ := strconv.Atoi(r.Header.Get("Postroad-Compacted"))
		return count
	}
	for _, lanes := range []int{1, 8} {
		for _, batch := range []int{1, 7} {
			t.Run(fmt.Sprintf("%d lanes of %d", lanes, batch), func(t *testing.T) {
				t.Parallel()
				b, p := setup(t), newPicky(t, 422)
				b.create(p.URL(), func(s *event.Subscriber) {
					s.Lanes, s.BatchSize, s.Compact = event.Count(lanes), event.Count(batch), event.CompactCatchUp
				})
				b.control(store.ControlPause)
				for range n / 500 {
					b.publish(spread(500, keys)...)
				}
				b.publish(event.Event{ResourceName: "Member", ResourceRecordKey: "once"})
				b.control(store.ControlResume)
				b.drive(contract.OutcomeParked)
				wantList(t, "arrived", slices.Sorted(slices.Values(p.got())), every(n-keys+1, 1, n+1))
				older := 0
				for _, r := range p.Requests() {
					if !p.accepted(r) {
						continue
					}
					older += compacted(r)
					want := 0
					for _, e := range sentEvents(t, r) {
						if e.Name == "Property" {
							want += n/keys - 1
						}
					}
					if compacted(r) != want || want == 0 && r.Header["Postroad-Compacted"] != nil {
						t.Errorf("request %d stands for %d older events, want %d", r.N, compacted(r), want)
					}
				}
				if older != n-keys {
					t.Errorf("%d events were left out, as the requests say, want %d", older, n-keys)
				}
				if row := b.row(); row.Cursor != n+1 || len(row.Settled) > 0 {
					t.Errorf("%+v", row)
				}
				testkit.Eventually(t, waitMax, func() bool { return b.compactedAttempts() == older }, "the requests are recorded with what they stand for")

				since := p.Count()
				b.publish(spread(200, keys)...)
				b.drive(contract.OutcomeParked)
				got := arrivals(t, p.Requests()[since:], p.accepted)
				wantList(t, "once caught up", slices.Sorted(slices.Values(got)), every(n+2, 1, n+201))
				for _, r := range p.Requests()[since:] {
					if r.Header["Postroad-Compacted"] != nil {
						t.Errorf("request %d says that events were left out", r.N)
					}
				}
				wantKeyOrder(t, p.Requests(), p.accepted, keys+1+200)
			})
		}
	}
}

// TestCompactStretches has a subscriber that wants few of the events fall behind by
// more than is looked at in one go: it gets the newest of each record of each
// stretch.
func TestCompactStretches(t *testing.T) {
	t.Parallel()
	const n, stretch, keys = 6000, 1000, 5
	b := setup(t, func(c *activities.Config) { c.LookAhead = stretch })
	p := newPicky(t, 422)
	for range n / 500 {
		events := spread(500, keys)
		for i := range events {
			if i%10 >= keys { // half of them are not wanted
				events[i].ResourceName = "Member"
			}
		}
		b.publish(events...)
	}
	b.create(p.URL(), func(s *event.Subscriber) {
		s.Compact, s.Filter.ResourceNames = event.CompactCatchUp, []string{"Property"}
	})
	b.drive(contract.OutcomeParked)
	// The last stretch may be within reach of the head, and is sent as it is then.
	if got, most := len(p.got()), (n/stretch-1)*keys+stretch/2; got > most {
		t.Errorf("%d events arrived, more than %d", got, most)
	}
	wantKeyOrder(t, p.Requests(), p.accepted, len(p.got()))
}

// TestCompactRefused has an event refused while a subscriber catches up: it waits,
// and still each record's newest event arrives once.
func TestCompactRefused(t *testing.T) {
	t.Parallel()
	const n, keys = 2000, 50
	for _, policy := range []string{event.OnExhaustedHalt, event.OnExhaustedHold} {
		for _, lanes := range []int{1, 8} {
			t.Run(fmt.Sprintf("%s/%d", policy, lanes), func(t *testing.T) {
				t.Parallel()
				b, p := setup(t), newPicky(t, 422, "9")
				for range n / 500 {
					b.publish(spread(500, keys)...)
				}
				b.create(p.URL(), func(s *event.Subscriber) {
					s.Lanes, s.Compact, s.OnExhausted, s.Retry.EventAttempts = event.Count(lanes), event.CompactCatchUp, policy, 2
				})
				b.drive(contract.OutcomeParked, contract.OutcomeHalted)
				p.mend("9")
				if policy == event.OnExhaustedHalt {
					b.control(store.ControlResume)
				}
				b.driveReleased()
				wantList(t, "arrived", slices.Sorted(slices.Values(p.got())), every(n-keys+1, 1, n))
				wantKeyOrder(t, p.Requests(), p.accepted, keys)
				if row := b.row(); row.Cursor != n || len(row.Settled) > 0 {
					t.Errorf("%+v", row)
				}
			})
		}
	}
}

// compactedAttempts is how many events were left out, as is recorded of requests
// that were accepted.
func (b *bundle) compactedAttempts() (n int) {
	b.t.Helper()
	check(b.t, b.pool.QueryRow(b.t.Context(), `SELECT coalesce(sum(compacted), 0) FROM attempts WHERE class = 'success'`).Scan(&n))
	return n
}
