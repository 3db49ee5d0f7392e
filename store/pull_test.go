package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

// puller is a subscriber of mode pull from the beginning.
func (b *bundle) puller(change func(*event.Subscriber)) event.Subscriber {
	b.t.Helper()
	sub := event.Subscriber{ID: "acme", Mode: event.ModePull, Start: event.Start{Where: "beginning"}}.Defaulted()
	if change != nil {
		change(&sub)
	}
	if faults := sub.Validate(false); len(faults) > 0 {
		b.t.Fatal(faults)
	}
	_, err := b.Create(b.t.Context(), sub, event.Secrets{})
	check(b.t, err)
	return sub
}

func leases(n int) func(*event.Subscriber) {
	return func(s *event.Subscriber) { s.Pull.Leases = n }
}

// events appends events of the given keys, from sequence 1 on.
func (b *bundle) events(keys ...string) {
	b.t.Helper()
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, data)
		SELECT f.id, h.head + n, clock_timestamp(), CASE WHEN k LIKE 'other%' THEN 'Other' ELSE 'Property' END, k, '0123456789'
		FROM feeds f, unnest($1::text[]) WITH ORDINALITY AS k (k, n), (SELECT coalesce(max(sequence), 0) AS head FROM events) h WHERE f.name = 'default'`, keys)
}

// pull hands out what there is; none is expected to be held back.
func (b *bundle) pull(limit int) store.Pulled {
	b.t.Helper()
	pulled, err := b.Pull(b.t.Context(), store.PullRequest{Subscriber: "acme", Limit: limit, Bytes: 1 << 20})
	check(b.t, err)
	return pulled
}

// wantPull pulls and compares the numbers.
func (b *bundle) wantPull(limit int, want ...int64) store.Pulled {
	b.t.Helper()
	pulled := b.pull(limit)
	if !slices.Equal(pulled.Sequences, want) || (pulled.Lease == uuid.Nil) != (len(want) == 0) {
		b.t.Fatalf("handed out %+v, want %v", pulled, want)
	}
	return pulled
}

func (b *bundle) commit(sequence int64, lease uuid.UUID) store.Committed {
	b.t.Helper()
	done, err := b.Commit(b.t.Context(), store.CommitRequest{Subscriber: "acme", Sequence: sequence, Lease: lease})
	check(b.t, err)
	return done
}

// over ends a lease before its time.
func (b *bundle) over(lease uuid.UUID) {
	b.t.Helper()
	b.exec(`UPDATE pull_leases SET expires_at = clock_timestamp() WHERE id = $1`, lease)
}

func (b *bundle) wantPosition(cursor int64, settled ...int64) {
	b.t.Helper()
	run, err := b.Run(b.t.Context(), "acme")
	check(b.t, err)
	if run.Cursor != cursor || !slices.Equal(run.Settled, settled) {
		b.t.Errorf("cursor %d and settled %v, want %d and %v", run.Cursor, run.Settled, cursor, settled)
	}
}

// TestPullOneLease: everything is handed out in order, one lease at a time.
func TestPullOneLease(t *testing.T) {
	b := setup(t)
	b.puller(func(s *event.Subscriber) { s.Filter.ResourceNames = []string{"Property"} })
	if p := b.wantPull(10); p.Blocked || p.More || p.Position != 0 {
		t.Errorf("%+v", p)
	}
	b.events("other", "a", "b", "other", "a", "c", "other")
	first := b.wantPull(2, 2, 3)
	b.wantPosition(1)
	if left := time.Until(first.ExpiresAt); left < 25*time.Second || left > 31*time.Second {
		t.Errorf("the lease is over in %s", left)
	}
	if p := b.wantPull(10); !p.Blocked {
		t.Errorf("a second lease: %+v", p)
	}
	if done := b.commit(2, uuid.Nil); done.Cursor != 2 || done.Events != 1 || done.ExpiresAt == nil {
		t.Errorf("%+v", done)
	}
	b.wantPull(10)
	b.over(first.Lease)
	second := b.wantPull(10, 3, 5, 6)
	b.wantPosition(2, 4, 4, 7, 7)
	if done := b.commit(6, second.Lease); done.Cursor != 7 || done.Events != 3 || done.ExpiresAt != nil {
		t.Errorf("%+v", done)
	}
	b.wantPosition(7)
	if p := b.wantPull(10); p.Blocked || p.Position != 7 || p.Cursor != 7 || p.Head != 7 {
		t.Errorf("%+v", p)
	}
	if n := value[int](b, `SELECT count(*) FROM pull_leases`); n != 0 {
		t.Errorf("%d leases are left", n)
	}
}

// TestPullSeveralLeases: what is of one record is in one pair of hands at a time,
// and what a lease that is over has left goes first.
func TestPullSeveralLeases(t *testing.T) {
	b := setup(t)
	b.puller(leases(3))
	b.events("a", "b", "a", "c", "b", "d", "e", "a")
	one := b.wantPull(2, 1, 2)
	two := b.wantPull(2, 4, 6)
	three := b.wantPull(10, 7)
	if p := b.wantPull(10); !p.Blocked {
		t.Errorf("a fourth lease: %+v", p)
	}
	b.wantPosition(0)
	b.commit(7, three.Lease)
	b.wantPosition(0, 7, 7)
	b.commit(1, one.Lease) // 2 is out: b's 5 waits, a's 3 does not
	three = b.wantPull(1, 3)
	b.commit(6, two.Lease)
	b.wantPosition(1, 4, 4, 6, 7)
	if p := b.wantPull(10); !p.Blocked { // 5 waits behind 2, and 8 behind 3
		t.Errorf("a record is in two pairs of hands: %+v", p)
	}
	b.over(one.Lease)
	b.wantPull(10, 2, 5)
	b.commit(3, three.Lease)
	b.wantPosition(1, 3, 4, 6, 7)
	b.wantPull(10, 8)
}

// TestPullFilterChanges: what is out when the filter stops matching it is not
// passed, nor its record in other hands, until it is committed or over.
func TestPullFilterChanges(t *testing.T) {
	b := setup(t)
	sub := b.puller(leases(2))
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, event_type)
		SELECT f.id, n, clock_timestamp(), 'Property', 'a', CASE WHEN n = 3 THEN 'new' ELSE 'old' END FROM feeds f, generate_series(1, 3) n WHERE f.name = 'default'`)
	p := b.wantPull(2, 1, 2)
	sub.Filter.EventTypes = []string{"new"}
	_, _, err := b.Replace(t.Context(), sub, event.Secrets{}, store.Change{Source: "api"})
	check(t, err)
	if p := b.wantPull(10); !p.Blocked {
		t.Errorf("a record is in two pairs of hands: %+v", p)
	}
	b.wantPosition(0)
	b.commit(1, p.Lease)
	b.over(p.Lease)
	b.wantPull(10, 3)
	b.wantPosition(2)
}

// TestCommit refuses what is not handed out, and does nothing twice.
func TestCommit(t *testing.T) {
	b := setup(t)
	sub := b.puller(nil)
	fails := func(sequence int64, lease uuid.UUID, want any) {
		t.Helper()
		_, err := b.Commit(t.Context(), store.CommitRequest{Subscriber: "acme", Sequence: sequence, Lease: lease})
		if is, ok := want.(error); ok && !errors.Is(err, is) && !errors.As(err, &want) {
			t.Errorf("commit %d: %v, want %v", sequence, err, want)
		}
		var notOut *store.NotHandedOutError
		if want, ok := want.(store.NotHandedOutError); ok && (!errors.As(err, &notOut) || *notOut != want) {
			t.Errorf("commit %d: %v, want %+v", sequence, err, want)
		}
	}
	b.events("a", "b", "c", "d", "e")
	fails(1, uuid.Nil, store.NotHandedOutError{Sequence: 1})
	p := b.wantPull(3, 1, 2, 3)
	fails(4, uuid.Nil, store.NotHandedOutError{Sequence: 4, First: 1, Last: 3})
	fails(4, p.Lease, store.NotHandedOutError{Sequence: 4, First: 1, Last: 3})
	fails(1, uuid.New(), store.ErrLeaseOver)
	if done := b.commit(0, uuid.Nil); done.Events != 0 {
		t.Errorf("%+v", done)
	}
	b.commit(2, p.Lease)
	for _, sequence := range []int64{0, 1, 2} {
		if done := b.commit(sequence, p.Lease); done.Cursor != 2 || done.Events != 0 {
			t.Errorf("again %d: %+v", sequence, done)
		}
	}
	b.commit(3, p.Lease)
	if done := b.commit(3, p.Lease); done.Cursor != 3 || done.Events != 0 {
		t.Errorf("the whole lease again: %+v", done)
	}
	// A lease that is over still counts while its events are nobody else's.
	p = b.wantPull(1, 4)
	b.over(p.Lease)
	b.commit(4, p.Lease)
	p = b.wantPull(1, 5)
	b.over(p.Lease)
	b.wantPull(1, 5)
	fails(5, p.Lease, store.ErrLeaseOver)
	if _, err := b.Commit(t.Context(), store.CommitRequest{Subscriber: "nobody", Sequence: 1}); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}

	sub.Pull = &event.Pull{LeaseDuration: event.LeaseDurationMin, Leases: 2}
	_, _, err := b.Replace(t.Context(), sub, event.Secrets{}, store.Change{Source: "api"})
	check(t, err)
	fails(5, uuid.Nil, store.ErrLeaseWanted)
	if done := b.commit(4, uuid.Nil); done.Events != 0 {
		t.Errorf("%+v", done)
	}
	b.create("push", event.Start{})
	if _, err := b.Commit(t.Context(), store.CommitRequest{Subscriber: "push"}); !errors.Is(err, store.ErrPushes) {
		t.Error(err)
	}
	if _, err := b.Pull(t.Context(), store.PullRequest{Subscriber: "push"}); !errors.Is(err, store.ErrPushes) {
		t.Error(err)
	}
}

// TestPullHoldsBack: a pause, a halt and a 410 of before hold for who fetches too.
func TestPullHoldsBack(t *testing.T) {
	b := setup(t)
	b.puller(nil)
	b.events("a", "b")
	p := b.wantPull(1, 1)
	for set, state := range map[string]string{
		"paused = true": store.StatePaused, "paused = true, paused_until = clock_timestamp() + interval '1 hour'": store.StatePaused,
		"halted_reason = 'why'": store.StateHalted, "disabled = true": store.StateDisabled,
	} {
		b.exec(`UPDATE runs SET paused = false, paused_until = NULL, halted_reason = NULL, disabled = false`)
		b.exec(`UPDATE runs SET ` + set)
		_, err := b.Pull(t.Context(), store.PullRequest{Subscriber: "acme"})
		var held *store.HeldBackError
		if !errors.As(err, &held) || held.State != state || held.Reason == "" {
			t.Errorf("%s: %v", set, err)
		}
	}
	b.commit(1, p.Lease)
	b.exec(`UPDATE runs SET halted_reason = NULL, disabled = false, paused = true, paused_until = clock_timestamp(), not_before = clock_timestamp() + interval '1 hour', wait_class = 'asked'`)
	b.wantPull(1, 2)
}

// TestPullSeek: a seek ends all leases, and what follows it is handed out again.
func TestPullSeek(t *testing.T) {
	b := setup(t)
	b.puller(leases(2))
	b.events("a", "b", "c", "d")
	p := b.wantPull(1, 1)
	b.commit(1, p.Lease)
	one, two := b.wantPull(1, 2), b.wantPull(1, 3)
	b.commit(3, two.Lease)
	if result := b.mustAsk(store.ControlRequest{Kind: store.ControlSeek, Seek: &store.SeekTarget{Beginning: true}}); !result.InForce {
		t.Error("not in force")
	}
	if _, err := b.Commit(t.Context(), store.CommitRequest{Subscriber: "acme", Sequence: 2, Lease: one.Lease}); !errors.Is(err, store.ErrLeaseOver) {
		t.Error(err)
	}
	b.wantPull(10, 1, 2, 3, 4)
}

// TestPullBounds: a lease is bounded in bytes, with one event at least, and the
// look for it in events; what was looked at is not looked at again.
func TestPullBounds(t *testing.T) {
	b := setup(t)
	b.puller(nil)
	b.events("a", "b", "c")
	p, err := b.Pull(t.Context(), store.PullRequest{Subscriber: "acme", Limit: 10, Bytes: 25})
	check(t, err)
	if !slices.Equal(p.Sequences, []int64{1, 2}) {
		t.Errorf("%+v", p)
	}
	b.commit(2, p.Lease)
	if p, err = b.Pull(t.Context(), store.PullRequest{Subscriber: "acme", Limit: 10, Bytes: 1}); err != nil || !slices.Equal(p.Sequences, []int64{3}) {
		t.Errorf("%+v, %v", p, err)
	}
	b.commit(3, p.Lease)
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		SELECT f.id, 3 + n, clock_timestamp(), 'Other', n::text FROM feeds f, generate_series(1, 20000) n WHERE f.name = 'default'`)
	b.exec(`UPDATE subscribers SET config = jsonb_set(config, '{filter}', '{"resourceNames":["Property"]}')`)
	b.events("d")
	if p := b.wantPull(10); !p.More || p.Position != 20003 {
		t.Errorf("%+v", p)
	}
	b.wantPosition(20003)
	b.wantPull(10, 20004)
}

// TestPullAboveTheFloor: events that are no longer kept are passed over.
func TestPullAboveTheFloor(t *testing.T) {
	b := setup(t)
	b.puller(nil)
	b.events("a", "b", "c", "d")
	b.exec(`DELETE FROM events WHERE sequence <= 2`)
	b.exec(`UPDATE feeds SET floor_sequence = 2 WHERE name = 'default'`)
	b.wantPull(10, 3, 4)
	b.wantPosition(2)
}

// TestPullers: whatever pollers do, and however often one dies, no event is in two
// hands at once, what is of one record comes in order, and all is committed.
func TestPullers(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 4, 16} {
		t.Run(fmt.Sprintf("%d leases", most), func(t *testing.T) {
			b := setup(t)
			b.puller(func(s *event.Subscriber) { s.Pull = &event.Pull{LeaseDuration: event.LeaseDurationMin, Leases: most} })
			const total = 600
			keys := make([]string, total)
			for i := range keys {
				keys[i] = fmt.Sprint(rand.IntN(40))
			}
			w := &watcher{t: t, b: b, keys: keys, holder: map[int64]int{}, last: map[string]int64{}, done: map[int64]bool{}}
			var pollers sync.WaitGroup
			for i := range 6 {
				pollers.Go(func() { w.poll(i + 1) })
			}
			for at := 0; at < total; at += 50 {
				b.events(keys[at : at+50]...)
			}
			pollers.Wait()
			b.wantPosition(total)
			if len(w.done) != total {
				t.Errorf("%d events are done, want %d", len(w.done), total)
			}
		})
	}
}

// watcher checks what pollers are handed.
type watcher struct {
	t    *testing.T
	b    *bundle
	keys []string

	mu     sync.Mutex
	holder map[int64]int    // who has an event
	last   map[string]int64 // of a key, the last event that was committed
	done   map[int64]bool
}

func (w *watcher) poll(who int) {
	for w.t.Context().Err() == nil && !w.t.Failed() {
		p, err := w.b.Pull(w.t.Context(), store.PullRequest{Subscriber: "acme", Limit: 1 + rand.IntN(9), Bytes: 1 << 20})
		if err != nil {
			w.t.Error(err)
			return
		}
		if len(p.Sequences) == 0 {
			if w.finished() {
				return
			}
			runtime.Gosched()
			continue
		}
		w.take(who, p.Sequences)
		through := len(p.Sequences)
		if rand.IntN(4) == 0 {
			through = rand.IntN(through + 1) // the poller dies
		}
		w.giveBack(p.Sequences, through)
		if through > 0 {
			if _, err := w.b.Commit(w.t.Context(), store.CommitRequest{Subscriber: "acme", Sequence: p.Sequences[through-1], Lease: p.Lease}); err != nil {
				w.t.Error(err)
			}
		}
		if through < len(p.Sequences) {
			w.b.over(p.Lease)
		}
	}
}

// take notes who has what: nobody else may have it, or something of its record.
func (w *watcher) take(who int, sequences []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range sequences {
		key := w.keys[n-1]
		for other, holder := range w.holder {
			if holder != who && w.keys[other-1] == key {
				w.t.Errorf("%d and %d of record %s are in the hands of %d and %d", n, other, key, who, holder)
			}
		}
		if w.done[n] || n <= w.last[key] {
			w.t.Errorf("%d is handed out after %d was committed", n, w.last[key])
		}
		w.holder[n] = who
	}
}

// giveBack notes what is committed, before it is, and what is not.
func (w *watcher) giveBack(sequences []int64, through int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range sequences {
		delete(w.holder, n)
		if i < through {
			w.done[n], w.last[w.keys[n-1]] = true, n
		}
	}
}

func (w *watcher) finished() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done) == len(w.keys)
}

// TestPullIsNeverParked: a run that parks a row which became one of mode pull
// meanwhile gives it back instead.
func TestPullIsNeverParked(t *testing.T) {
	b := setup(t)
	sub := subscriber("acme")
	sub.Start = event.Start{Where: "beginning"}
	_, err := b.Create(t.Context(), sub, event.Secrets{})
	check(t, err)
	b.events("a")
	lease := uuid.New()
	taken, err := b.TakeLease(t.Context(), "acme", lease)
	check(t, err)
	sub.Mode = event.ModePull
	_, result, err := b.Replace(t.Context(), sub.Defaulted(), event.Secrets{}, store.Change{Source: "api"})
	check(t, err)
	if result.InForce || !taken.Held {
		t.Errorf("%+v beside %+v", result, taken)
	}
	if p := b.wantPull(1); !p.Blocked {
		t.Errorf("%+v", p)
	}
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Park: true})
	if run, err := b.Run(t.Context(), "acme"); err != nil || run.Parked || run.Lease != nil {
		t.Errorf("%+v, %v", run, err)
	}
	b.wantPull(1, 1)
	if taken, err := b.TakeLease(t.Context(), "acme", uuid.New()); err != nil || taken.Held {
		t.Errorf("%+v, %v", taken, err)
	}
}

// TestPullStatus: the status knows what is out.
func TestPullStatus(t *testing.T) {
	b := setup(t)
	b.puller(nil)
	status := func() store.Status {
		s, err := b.Status(t.Context(), "acme")
		check(t, err)
		return s
	}
	if s := status(); s.State != store.StateIdle || s.Pull == nil || s.Pull.Leases != 0 {
		t.Errorf("%+v", s)
	}
	b.events("a", "b", "c")
	p := b.wantPull(2, 1, 2)
	s := status()
	if s.State != store.StateActive || s.LagEvents != 3 || s.InFlight != 2 || s.Pull.Leases != 1 || s.Pull.Events != 2 || !s.Pull.NextOverAt.Equal(p.ExpiresAt) {
		t.Errorf("%+v %+v", s, s.Pull)
	}
	if diff := cmp.Diff("the consumer fetches its events; 3 events are not committed", s.Reason); diff != "" {
		t.Error(diff)
	}
	b.over(p.Lease)
	if s := status(); s.Pull.Leases != 0 || s.InFlight != 0 || s.State != store.StateActive {
		t.Errorf("%+v", s)
	}
	p = b.wantPull(10, 1, 2, 3)
	b.commit(3, p.Lease)
	if s := status(); s.State != store.StateIdle || s.LagEvents != 0 || s.LastDeliveredAt == nil {
		t.Errorf("%+v", s)
	}
}
