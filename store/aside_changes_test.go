package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

func key(k string) event.Key { return event.Key{ResourceName: "Property", ResourceRecordKey: k} }

// aside is what is set aside of acme: held events by key, dead letters by reason.
type aside struct {
	Held map[string][]int64
	Dead map[int64]string
}

func (b *bundle) aside() aside {
	b.t.Helper()
	got := aside{Held: map[string][]int64{}, Dead: map[int64]string{}}
	keys, err := b.HeldKeys(b.t.Context(), "acme", event.Key{}, 100)
	check(b.t, err)
	for _, k := range keys {
		events, err := b.HeldEvents(b.t.Context(), "acme", k.Key, 0, 100)
		check(b.t, err)
		sequences := []int64{}
		for _, e := range events {
			sequences = append(sequences, e.Sequence)
		}
		got.Held[k.Key.ResourceRecordKey] = sequences
	}
	if n := value[int](b, `SELECT count(*) FROM held_events h WHERE NOT EXISTS (SELECT FROM held_keys k
		WHERE k.subscriber = h.subscriber AND k.resource_name = h.resource_name AND k.resource_key = h.resource_key)`); n > 0 {
		b.t.Errorf("%d events wait behind keys that are not held", n)
	}
	dead, err := b.DeadLetters(b.t.Context(), "acme", 0, 100)
	check(b.t, err)
	for _, d := range dead {
		got.Dead[d.Sequence] = d.Reason
	}
	return got
}

func (b *bundle) wantAside(want aside) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.aside(), cmpopts.EquateEmpty()); diff != "" {
		b.t.Errorf("set aside (-want +got):\n%s", diff)
	}
}

// hold holds keys of acme with the events behind them: the run that it takes has
// the lease afterwards.
func (b *bundle) hold(keys map[string][]int64, dead ...int64) uuid.UUID {
	b.t.Helper()
	lease, _ := b.take()
	c := &store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Cursor: b.run("acme").Cursor, Aside: &store.AsideChanges{}}
	for k, sequences := range keys {
		c.Aside.Keys = append(c.Aside.Keys, store.HeldKey{Key: key(k), Attempts: 5, Wait: time.Hour, LastStatus: 422, LastError: "HTTP 422"})
		for _, n := range sequences {
			c.Aside.Hold = append(c.Aside.Hold, store.HeldEvent{Sequence: n, Key: key(k)})
		}
	}
	for _, n := range dead {
		c.Aside.Dead = append(c.Aside.Dead, store.DeadLetter{Sequence: n, Key: key("dead"), Reason: store.DeadExhausted, Attempts: 5})
	}
	if !b.write(c)[0].Held {
		b.t.Fatal("the checkpoint was not written")
	}
	return lease
}

func TestAsideChanges(t *testing.T) {
	t.Parallel()
	begin := event.Start{Where: "beginning"}
	t.Run("set aside and given up", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		c := &store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Cursor: 9, Aside: &store.AsideChanges{
			Hold: []store.HeldEvent{{Sequence: 3, Key: key("a")}, {Sequence: 7, Key: key("a"), Replay: 2}},
			Keys: []store.HeldKey{{Key: key("a"), Attempts: 5, Wait: time.Hour, LastStatus: 422, LastError: "HTTP 422"}},
			Dead: []store.DeadLetter{{Sequence: 5, Key: key("b"), Reason: store.DeadExhausted, Attempts: 4, LastStatus: 400, LastError: "HTTP 400"}},
		}}
		for range 2 { // once more does no harm
			b.write(c)
			c.Number++
		}
		b.wantAside(aside{Held: map[string][]int64{"a": {3, 7}}, Dead: map[int64]string{5: "exhausted"}})
		loaded, err := b.Load(t.Context(), "acme")
		check(t, err)
		ignore := cmpopts.IgnoreFields(store.HeldKey{}, "Since", "Wait", "NotBefore")
		want := []store.HeldKey{{Key: key("a"), Events: 2, FirstSequence: 3, Attempts: 5, LastStatus: 422, LastError: "HTTP 422"}}
		if diff := cmp.Diff(want, loaded.Held, ignore); diff != "" || loaded.HeldEvents != 2 || loaded.DeadLetters != 1 {
			t.Errorf("loaded %d held events, %d dead letters, keys (-want +got):\n%s", loaded.HeldEvents, loaded.DeadLetters, diff)
		}
		if k := loaded.Held[0]; k.Wait.Round(time.Minute) != time.Hour || k.NotBefore == nil || time.Since(k.Since) > time.Minute {
			t.Errorf("%+v", k)
		}
		events, err := b.HeldEvents(t.Context(), "acme", key("a"), 3, 10)
		check(t, err)
		if diff := cmp.Diff([]store.HeldEvent{{Sequence: 7, Key: key("a"), Replay: 2}}, events); diff != "" {
			t.Error(diff)
		}
		dead, err := b.DeadLetters(t.Context(), "acme", 4, 10)
		check(t, err)
		wantDead := []store.DeadLetter{{Sequence: 5, Key: key("b"), Reason: "exhausted", Attempts: 4, LastStatus: 400, LastError: "HTTP 400"}}
		if diff := cmp.Diff(wantDead, dead, cmpopts.IgnoreFields(store.DeadLetter{}, "At")); diff != "" {
			t.Error(diff)
		}
		if s, err := b.Status(t.Context(), "acme"); err != nil || s.HeldKeys != 1 || s.DeadLetters != 1 {
			t.Errorf("status %+v, %v", s, err)
		}
	})
	t.Run("accepted and released", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease := b.hold(map[string][]int64{"a": {3, 7}, "b": {4}, "c": {5, 6}}, 8, 9)
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Aside: &store.AsideChanges{
			Unhold: []int64{3, 4, 5, 6}, Release: []event.Key{key("a"), key("b"), key("c")}, Redelivered: []int64{8},
		}})
		// a has an event left: it is not lost sight of.
		b.wantAside(aside{Held: map[string][]int64{"a": {7}}, Dead: map[int64]string{9: "exhausted"}})
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 3, Aside: &store.AsideChanges{
			Keys: []store.HeldKey{{Key: key("a"), Attempts: 1, Wait: time.Minute}},
		}})
		keys, err := b.HeldKeys(t.Context(), "acme", event.Key{}, 10)
		check(t, err)
		if len(keys) != 1 || keys[0].Attempts != 1 || keys[0].Wait > time.Minute || keys[0].LastError != "" {
			t.Errorf("%+v", keys)
		}
	})
	t.Run("only with the position", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease := b.hold(map[string][]int64{"a": {3}}, 4)
		before := b.aside()
		late := func(number int64) *store.Checkpoint {
			return &store.Checkpoint{ID: "acme", Lease: lease, Number: number, Cursor: 99, Aside: &store.AsideChanges{
				Hold: []store.HeldEvent{{Sequence: 6, Key: key("x")}}, Keys: []store.HeldKey{{Key: key("x")}}, Unhold: []int64{3},
				Release: []event.Key{key("a")}, Dead: []store.DeadLetter{{Sequence: 7, Reason: "exhausted"}}, Redelivered: []int64{4},
			}}
		}
		if r := b.write(late(1))[0]; r.Held {
			t.Error("a try that was given up was written")
		}
		b.wantAside(before)
		tx, err := b.pool.Begin(t.Context())
		check(t, err)
		_, err = tx.Exec(t.Context(), `SELECT FROM runs FOR UPDATE`)
		check(t, err)
		if r := b.write(late(2))[0]; !r.Busy {
			t.Errorf("of a locked row: %+v", r)
		}
		check(t, tx.Rollback(t.Context()))
		b.wantAside(before)
		b.take()
		if r := b.write(late(3))[0]; r.Held || r.Busy {
			t.Errorf("under a lease that was lost: %+v", r)
		}
		b.wantAside(before)
		if cursor := b.run("acme").Cursor; cursor == 99 {
			t.Error("the position moved")
		}
	})
	t.Run("beside others", func(t *testing.T) {
		b := setup(t)
		leases := map[string]uuid.UUID{}
		for _, id := range []string{"a", "acme", "b", "c"} {
			b.create(id, begin)
			leases[id] = uuid.New()
			_, err := b.TakeLease(t.Context(), id, leases[id])
			check(t, err)
		}
		checkpoint := func(id, lastError string) *store.Checkpoint {
			return &store.Checkpoint{ID: id, Lease: leases[id], Cursor: 5, Park: id != "b", Aside: &store.AsideChanges{
				Hold: []store.HeldEvent{{Sequence: 3, Key: key("k")}}, Keys: []store.HeldKey{{Key: key("k"), LastError: lastError}},
			}}
		}
		plain := &store.Checkpoint{ID: "c", Lease: leases["c"], Cursor: 6}
		_, err := b.WriteCheckpoints(t.Context(), []*store.Checkpoint{plain, checkpoint("a", ""), checkpoint("acme", "\x00")})
		if !store.DataRefused(err) {
			t.Fatalf("refused data: %v", err)
		}
		if n := value[int](b, `SELECT count(*) FROM runs WHERE cursor > 0`) + value[int](b, `SELECT count(*) FROM held_events`); n != 0 {
			t.Errorf("%d rows were written beside refused data", n)
		}
		results := b.write(checkpoint("a", ""), plain, checkpoint("acme", ""), checkpoint("b", ""), &store.Checkpoint{ID: "x", Lease: uuid.New()})
		for i, r := range results {
			if r.Held != (i < 4) || (r.Generation != 0) != (i == 0 || i == 2) {
				t.Errorf("%d: %+v", i, r)
			}
		}
		if n := value[int](b, `SELECT count(*) FROM held_events WHERE sequence = 3 AND subscriber IN ('a', 'acme', 'b')`); n != 3 {
			t.Errorf("%d held events", n)
		}
	})
}

// TestKeyHeldTold: that a key is held is told once for as long as it is.
func TestKeyHeldTold(t *testing.T) {
	b := setup(t)
	b.publish(time.Hour, 1, 2, 3, 4, 5, 6, 7)
	b.create("acme", event.Start{Where: "beginning"})
	lease := b.hold(map[string][]int64{"a": {7, 3}})
	notices, err := b.Notices(t.Context(), 10)
	check(t, err)
	if len(notices.Events) != 1 {
		t.Fatalf("told %d times", len(notices.Events))
	}
	e := notices.Events[0]
	var got map[string]any
	check(t, json.Unmarshal(e.Data, &got))
	delete(got, "at")
	want := map[string]any{
		"type": "key.held", "subscriber": "acme", "feed": "default", "resourceName": "Property", "resourceRecordKey": "a",
		"sequence": 3.0, "attempts": 5.0, "status": 422.0, "lastError": "HTTP 422",
		"text": "subscriber acme on feed default: events of Property/a are set aside, event 3 was refused 5 times, last answer HTTP 422",
	}
	if diff := cmp.Diff(want, got); diff != "" || e.EventType != store.NoticeKeyHeld || e.ResourceName != "Subscriber" || e.ResourceRecordKey != "acme" {
		t.Errorf("%+v (-want +got):\n%s", e, diff)
	}
	told := func() int { return value[int](b, `SELECT count(*) FROM notices`) }
	again := &store.AsideChanges{Keys: []store.HeldKey{{Key: key("a"), Attempts: 6}}, Hold: []store.HeldEvent{{Sequence: 8, Key: key("a")}}}
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Aside: again})
	if told() != 1 {
		t.Error("it was told again while it lasts")
	}
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 3, Aside: &store.AsideChanges{Unhold: []int64{3, 7, 8}, Release: []event.Key{key("a")}}})
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 4, Aside: again})
	if told() != 2 {
		t.Errorf("told %d times, held twice", told())
	}
	b.exec(`UPDATE runs SET feed_id = (SELECT id FROM feeds WHERE name = '_system')`)
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 5, Aside: &store.AsideChanges{Keys: []store.HeldKey{{Key: key("b")}}}})
	if told() != 2 {
		t.Error("what is told raised more")
	}
}

func TestDeadLetters(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{Where: "beginning"})
	lease := b.hold(nil, 2, 4, 6, 8)
	b.exec(`UPDATE dead_letters SET replay = 3 WHERE sequence IN (4, 8)`)
	if got, err := b.MissedSequences(t.Context(), "acme", 3, 0, 10); err != nil || !cmp.Equal(got, []int64{4, 8}) {
		t.Errorf("missed %v, %v", got, err)
	}
	if got, err := b.MissedSequences(t.Context(), "acme", 3, 4, 10); err != nil || !cmp.Equal(got, []int64{8}) {
		t.Errorf("missed above 4: %v, %v", got, err)
	}
	if got, err := b.DeadSequences(t.Context(), "acme", 2, 6, 10); err != nil || !cmp.Equal(got, []int64{4, 6}) {
		t.Errorf("dead in (2, 6]: %v, %v", got, err)
	}
	// Given up again, by the replay that took it up.
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Aside: &store.AsideChanges{
		Dead: []store.DeadLetter{{Sequence: 4, Key: key("dead"), Reason: store.DeadExhausted, Attempts: 9}},
	}})
	dead, err := b.DeadLetters(t.Context(), "acme", 2, 1)
	check(t, err)
	if len(dead) != 1 || dead[0].Attempts != 9 || dead[0].Replay != 3 {
		t.Errorf("%+v", dead)
	}
	if n, err := b.DismissDeadLetters(t.Context(), "acme", []int64{2, 3, 4}); n != 2 || err != nil {
		t.Errorf("dismissed %d, %v", n, err)
	}
	b.wantAside(aside{Dead: map[int64]string{6: "exhausted", 8: "exhausted"}})
	if _, err := b.DismissDeadLetters(t.Context(), "nobody", []int64{1}); err == nil || !strings.Contains(err.Error(), store.ErrNotFound.Error()) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestDeleteErasesAside: a tombstone has nothing of what was sent, and the id is
// free after it, also where the release before removes it.
func TestDeleteErasesAside(t *testing.T) {
	t.Parallel()
	count := func(b *bundle) int {
		return value[int](b, `SELECT (SELECT count(*) FROM held_keys) + (SELECT count(*) FROM held_events)
			+ (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM replays)`)
	}
	fill := func(b *bundle) {
		b.create("acme", event.Start{Where: "beginning"})
		b.hold(map[string][]int64{"a": {3}}, 4)
		b.exec(`INSERT INTO replays (subscriber, id, selection, after_sequence, through_sequence, total, source, cursor)
			VALUES ('acme', 1, '{"keys": ["private"]}', 0, 9, 9, 'test', 0)`)
		if count(b) != 4 {
			b.t.Fatalf("%d rows", count(b))
		}
	}
	t.Run("by delete", func(t *testing.T) {
		b := setup(t)
		fill(b)
		_, err := b.Delete(t.Context(), "acme", store.Change{Source: "test"})
		check(t, err)
		if n := count(b); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
	t.Run("by purge", func(t *testing.T) {
		b := setup(t)
		fill(b)
		b.exec(`UPDATE runs SET deleted = true`)
		check(t, b.Purge(t.Context(), "acme"))
		if n := count(b); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// TestAsideBelowFloor: what a run still has in memory while the floor passes it is
// not set aside any more: it could never be sent, and would keep the log.
func TestAsideBelowFloor(t *testing.T) {
	b := setup(t)
	b.publish(time.Hour, 1, 2, 3, 4, 5, 6)
	b.create("acme", event.Start{Where: "beginning"})
	lease, _ := b.take()
	b.exec(`UPDATE feeds SET floor_sequence = 3 WHERE name = 'default'`)
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Cursor: 6, Aside: &store.AsideChanges{
		Hold: []store.HeldEvent{{Sequence: 2, Key: key("k")}, {Sequence: 4, Key: key("k")}},
		Keys: []store.HeldKey{{Key: key("k"), Attempts: 5}},
		Dead: []store.DeadLetter{{Sequence: 3, Key: key("d"), Reason: store.DeadExhausted}, {Sequence: 5, Key: key("d"), Reason: store.DeadExhausted}},
	}})
	b.wantAside(aside{Held: map[string][]int64{"k": {4}}, Dead: map[int64]string{5: store.DeadExhausted}})
}
