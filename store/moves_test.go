package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

// ask asks for a control of acme.
func (b *bundle) ask(r store.ControlRequest) (store.ControlResult, error) {
	r.Subscriber, r.Source = "acme", "test"
	return b.Control(b.t.Context(), r)
}

func (b *bundle) mustAsk(r store.ControlRequest) store.ControlResult {
	b.t.Helper()
	result, err := b.ask(r)
	check(b.t, err)
	return result
}

func seekTo(n int64) store.ControlRequest {
	return store.ControlRequest{Kind: store.ControlSeek, Seek: &store.SeekTarget{Sequence: &n}}
}

func (b *bundle) inForce(version int64) bool {
	b.t.Helper()
	in, err := b.InForce(b.t.Context(), "acme", version)
	check(b.t, err)
	return in
}

// TestMoves are applied by whoever takes the row next, and by nobody else.
func TestMoves(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*bundle, uuid.UUID) {
		b := setup(t)
		b.publish(time.Hour, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		b.create("acme", event.Start{Where: "beginning"})
		lease, _ := b.take()
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Cursor: 7})
		return b, lease
	}
	pending := func(b *bundle, version int64, cursor int64) {
		b.t.Helper()
		if run := b.run("acme"); b.inForce(version) || run.Moves == 0 || run.Cursor != cursor {
			b.t.Errorf("in force: %v; %d moves, cursor %d", b.inForce(version), run.Moves, run.Cursor)
		}
	}
	applied := func(b *bundle, version int64, cursor int64) {
		b.t.Helper()
		if run := b.run("acme"); !b.inForce(version) || run.Moves != 0 || run.Cursor != cursor {
			b.t.Errorf("in force: %v; %d moves, cursor %d", b.inForce(version), run.Moves, run.Cursor)
		}
	}
	t.Run("not by the holder", func(t *testing.T) {
		b, lease := begin(t)
		result := b.mustAsk(seekTo(3))
		if result.InForce {
			t.Error("in force while somebody sends")
		}
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 8, Applied: result.Version})
		pending(b, result.Version, 8)
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 3, Cursor: 9, Release: true})
		pending(b, result.Version, 9)
		if at := value[*time.Time](b, `SELECT applied_at FROM controls WHERE version = $1`, result.Version); at != nil {
			t.Error("it is recorded as in force")
		}
		if run := b.run("acme"); run.AppliedVersion != run.DesiredVersion {
			t.Errorf("the holder's word is not taken: %+v", run)
		}
		_, taken := b.take()
		applied(b, result.Version, 3)
		if taken.Run.Cursor != 3 || taken.Stale {
			t.Errorf("taken at %d, stale %v", taken.Run.Cursor, taken.Stale)
		}
		if at := value[*time.Time](b, `SELECT applied_at FROM controls WHERE version = $1`, result.Version); at == nil {
			t.Error("it is not recorded that it is in force")
		}
	})
	t.Run("not over a late checkpoint", func(t *testing.T) {
		b, lease := begin(t)
		result := b.mustAsk(seekTo(3))
		_, taken := b.take()
		if !taken.Stale {
			t.Error("nobody waits for the old holder")
		}
		if r := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 9})[0]; r.Held {
			t.Error("the old holder wrote")
		}
		applied(b, result.Version, 3)
		b.take()
		applied(b, result.Version, 3)
	})
	t.Run("not over a parking whose answer was lost", func(t *testing.T) {
		b, lease := begin(t)
		park := &store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 9, Park: true}
		b.write(park)
		result := b.mustAsk(seekTo(3))
		park.Number = 3
		if r := b.write(park)[0]; r.Held || r.Busy {
			t.Errorf("%+v", r)
		}
		applied(b, result.Version, 3)
		if _, taken := b.take(); taken.Stale {
			t.Error("the taker waits for a run that parked")
		}
	})
	t.Run("once", func(t *testing.T) {
		b, _ := begin(t)
		b.mustAsk(seekTo(3))
		lease, _ := b.take()
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Cursor: 6, Release: true})
		b.take()
		if cursor := b.run("acme").Cursor; cursor != 6 {
			t.Errorf("cursor %d: it was applied again", cursor)
		}
	})
	t.Run("in order", func(t *testing.T) {
		b, lease := begin(t)
		first, second := b.mustAsk(seekTo(2)), b.mustAsk(seekTo(5))
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 7, Park: true})
		pending(b, first.Version, 7)
		third := b.mustAsk(store.ControlRequest{Kind: store.ControlSeek, Seek: &store.SeekTarget{Sequence: new(int64(4))}})
		applied(b, first.Version, 4)
		applied(b, second.Version, 4)
		if !third.InForce {
			t.Error("the row is parked")
		}
	})
	t.Run("of a row that may not send", func(t *testing.T) {
		b, lease := begin(t)
		seek := b.mustAsk(seekTo(3))
		pause := b.control(store.ControlPause)
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 8, Release: true})
		pending(b, seek.Version, 8)
		taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
		check(t, err)
		if taken.Held || taken.Stale || taken.Run.Cursor != 3 || !taken.Run.Paused {
			t.Errorf("%+v", taken)
		}
		applied(b, seek.Version, 3)
		if !b.inForce(pause.Version) {
			t.Error("the pause is not in force")
		}
	})
	t.Run("of a row that may not send, whose holder vanished", func(t *testing.T) {
		b, lease := begin(t)
		seek := b.mustAsk(seekTo(3))
		pause := b.control(store.ControlPause)
		taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
		check(t, err)
		if taken.Held || !taken.Stale {
			t.Errorf("%+v", taken)
		}
		if r := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 9})[0]; r.Held {
			t.Error("the old holder wrote over it")
		}
		if b.inForce(pause.Version) || b.inForce(seek.Version) {
			t.Error("the old holder may still be starting a request")
		}
		check(t, b.ForceUnheld(t.Context(), "acme", false))
		check(t, b.ForceUnheld(t.Context(), "acme", true))
		applied(b, seek.Version, 3)
		if run := b.run("acme"); !b.inForce(pause.Version) || run.Lease != nil {
			t.Errorf("%+v", run)
		}
	})
	t.Run("not by who settles a fenced row", func(t *testing.T) {
		b, _ := begin(t)
		b.control(store.ControlPause)
		check(t, b.ForceUnheld(t.Context(), "acme", false))
		seek := b.mustAsk(seekTo(3))
		if seek.InForce {
			t.Error("the fenced holder has its second")
		}
		check(t, b.ForceUnheld(t.Context(), "acme", true))
		pending(b, seek.Version, 7)
		if at := value[*time.Time](b, `SELECT applied_at FROM controls WHERE version = $1`, seek.Version); at != nil {
			t.Error("it is recorded as in force")
		}
		b.exec(`UPDATE runs SET checked_at = clock_timestamp() - interval '1 hour'`)
		if ids, err := b.SweepRows(t.Context(), time.Minute, 10); len(ids) != 1 || err != nil {
			t.Errorf("swept %v, %v: nobody looks at it any more", ids, err)
		}
		_, err := b.TakeLease(t.Context(), "acme", uuid.New())
		check(t, err)
		applied(b, seek.Version, 3)
	})
	t.Run("not by the release before", func(t *testing.T) {
		b, lease := begin(t)
		seek := b.mustAsk(seekTo(3))
		// What its checkpoint did.
		b.exec(`UPDATE controls SET applied_at = clock_timestamp()`)
		b.exec(`UPDATE runs SET applied_version = desired_version, lease = NULL WHERE lease = $1`, lease)
		pending(b, seek.Version, 7)
		b.take()
		applied(b, seek.Version, 3)
	})
	t.Run("the same request twice", func(t *testing.T) {
		b, _ := begin(t)
		r := seekTo(3)
		r.RequestID = "once"
		first, second := b.mustAsk(r), b.mustAsk(r)
		if first != second || b.run("acme").Moves != 1 {
			t.Errorf("%+v, %+v, %d moves", first, second, b.run("acme").Moves)
		}
		b.take()
		if again := b.mustAsk(r); !again.InForce || again.Version != first.Version {
			t.Errorf("%+v", again)
		}
	})
	t.Run("not of a tombstone", func(t *testing.T) {
		b, _ := begin(t)
		b.mustAsk(seekTo(3))
		_, err := b.Delete(t.Context(), "acme", store.Change{})
		check(t, err)
		if taken, err := b.TakeLease(t.Context(), "acme", uuid.New()); err != nil || taken.Held || !taken.Run.Deleted {
			t.Errorf("%+v, %v", taken, err)
		}
	})
}

// TestMovesAgainstTakers: whoever writes while seeks come and others take the row,
// the last seek stands in the end.
func TestMovesAgainstTakers(t *testing.T) {
	b := setup(t)
	const seeks = 60
	for n := range int64(seeks + 2) {
		b.publish(time.Hour, n+1)
	}
	b.create("acme", event.Start{Where: "beginning"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var takers sync.WaitGroup
	for range 3 {
		takers.Go(func() {
			for number := int64(1); ctx.Err() == nil; number++ {
				lease := uuid.New()
				taken, err := b.TakeLease(t.Context(), "acme", lease)
				if err != nil {
					t.Error(err)
					return
				}
				for range 2 { // it writes what it knows, as a run does
					results, err := b.WriteCheckpoints(t.Context(), []*store.Checkpoint{{
						ID: "acme", Lease: lease, Number: number, Cursor: taken.Run.Cursor, Release: number%3 == 0, Park: number%3 == 1,
					}})
					if err != nil {
						t.Error(err)
						return
					}
					number++
					if !results[0].Held {
						break
					}
				}
			}
		})
	}
	var last store.ControlResult
	for n := range int64(seeks) {
		last = b.mustAsk(seekTo((n * 7) % seeks))
	}
	stop()
	takers.Wait()
	b.take()
	run := b.run("acme")
	if want := int64((seeks - 1) * 7 % seeks); run.Cursor != want || run.Moves != 0 || !b.inForce(last.Version) {
		t.Errorf("cursor %d, want %d; %d moves", run.Cursor, want, run.Moves)
	}
	if n := value[int](b, `SELECT count(*) FROM controls WHERE result = 'applied' AND applied_at IS NOT NULL`); n != seeks {
		t.Errorf("%d of %d seeks were applied", n, seeks)
	}
}

func TestHeldControls(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) *bundle {
		b := setup(t)
		b.publish(time.Hour, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		b.create("acme", event.Start{Where: "now"})
		lease := b.hold(map[string][]int64{"a": {3, 7}, "b": {4}}, 5)
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 9, Park: true})
		return b
	}
	of := func(kind, k string, sequence int64) store.ControlRequest {
		return store.ControlRequest{Kind: kind, Key: key(k), Sequence: sequence}
	}
	t.Run("retry", func(t *testing.T) {
		b := begin(t)
		b.mustAsk(of(store.ControlHeldRetry, "a", 0))
		keys, err := b.HeldKeys(t.Context(), "acme", event.Key{}, 10)
		check(t, err)
		if keys[0].Wait != 0 || keys[0].NotBefore != nil || keys[0].Attempts != 5 || keys[1].Wait == 0 {
			t.Errorf("%+v", keys)
		}
		if at := b.run("acme").WakeAt; at == nil || time.Until(*at) > 0 {
			t.Errorf("the parked row wakes at %v", at)
		}
	})
	t.Run("skip", func(t *testing.T) {
		b := begin(t)
		var other *store.NotFirstHeldError
		if _, err := b.ask(of(store.ControlHeldSkip, "a", 7)); !errors.As(err, &other) || other.First != 3 {
			t.Errorf("not the first: %v", err)
		}
		b.mustAsk(of(store.ControlHeldSkip, "a", 3))
		b.wantAside(aside{Held: map[string][]int64{"a": {7}, "b": {4}}, Dead: map[int64]string{3: "skipped", 5: "exhausted"}})
		dead, err := b.DeadLetters(t.Context(), "acme", 0, 1)
		check(t, err)
		if d := dead[0]; d.Attempts != 5 || d.LastStatus != 422 || d.LastError != "HTTP 422" || d.Source != "test" || d.Key != key("a") {
			t.Errorf("%+v", d)
		}
		keys, err := b.HeldKeys(t.Context(), "acme", event.Key{}, 10)
		check(t, err)
		if keys[0].Attempts != 0 || keys[0].Wait != 0 {
			t.Errorf("the next one is not due: %+v", keys[0])
		}
		b.mustAsk(of(store.ControlHeldSkip, "a", 0))
		b.wantAside(aside{Held: map[string][]int64{"b": {4}}, Dead: map[int64]string{3: "skipped", 7: "skipped", 5: "exhausted"}})
	})
	t.Run("skip of what was accepted meanwhile", func(t *testing.T) {
		b := begin(t)
		lease, _ := b.take()
		result := b.mustAsk(of(store.ControlHeldSkip, "a", 0))
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Cursor: 9, Release: true, Aside: &store.AsideChanges{Unhold: []int64{3}}})
		b.take()
		b.wantAside(aside{Held: map[string][]int64{"a": {7}, "b": {4}}, Dead: map[int64]string{5: "exhausted"}})
		if got := value[string](b, `SELECT result FROM controls WHERE version = $1`, result.Version); got != "void" || !b.inForce(result.Version) {
			t.Errorf("recorded as %q", got)
		}
	})
	t.Run("release", func(t *testing.T) {
		b := begin(t)
		b.mustAsk(of(store.ControlHeldRelease, "a", 0))
		b.wantAside(aside{Held: map[string][]int64{"b": {4}}, Dead: map[int64]string{3: "released", 7: "released", 5: "exhausted"}})
		dead, err := b.DeadLetters(t.Context(), "acme", 0, 10)
		check(t, err)
		if dead[0].Attempts != 5 || dead[2].Attempts != 0 || dead[2].LastError != "" || dead[2].Source != "test" {
			t.Errorf("%+v", dead)
		}
	})
	t.Run("of a key that is not held", func(t *testing.T) {
		b := begin(t)
		for _, kind := range []string{store.ControlHeldRetry, store.ControlHeldSkip, store.ControlHeldRelease} {
			var not *store.KeyNotHeldError
			if _, err := b.ask(of(kind, "c", 0)); !errors.As(err, &not) || not.Key != key("c") {
				t.Errorf("%s: %v", kind, err)
			}
		}
		if n := value[int](b, `SELECT count(*) FROM controls`); n != 0 {
			t.Errorf("%d controls are recorded", n)
		}
	})
}

func TestSkip(t *testing.T) {
	t.Parallel()
	skip := func(sequence int64) store.ControlRequest {
		return store.ControlRequest{Kind: store.ControlSkip, Sequence: sequence}
	}
	begin := func(t *testing.T, c store.Checkpoint) *bundle {
		b := setup(t)
		b.publish(time.Hour, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		b.create("acme", event.Start{Where: "beginning"})
		b.insertReplay(1, "running")
		b.exec(`UPDATE replays SET after_sequence = 2, cursor = 2, through_sequence = 9`)
		lease, _ := b.take()
		c.ID, c.Lease, c.Release, c.Halt, c.LastError = "acme", lease, true, "refused", "HTTP 422"
		b.write(&c)
		return b
	}
	refusal := func(b *bundle, sequence int64) *store.NotHaltedAtError {
		b.t.Helper()
		var not *store.NotHaltedAtError
		if _, err := b.ask(skip(sequence)); !errors.As(err, &not) {
			b.t.Fatalf("skip of %d: %v", sequence, err)
		}
		return not
	}
	t.Run("the first that is owed", func(t *testing.T) {
		b := begin(t, store.Checkpoint{Cursor: 3, Settled: []int64{5, 6}, Scanned: 6, HaltedEvent: 4, EventAttempt: 5, PreviousSequence: 2})
		b.control(store.ControlPause)
		b.mustAsk(skip(4))
		run := b.run("acme")
		if run.Cursor != 4 || run.PreviousSequence != 4 || !cmp.Equal(run.Settled, []int64{5, 6}) || run.EventAttempt != 0 || !run.Probe {
			t.Errorf("%+v", run)
		}
		if run.HaltedReason != nil || run.HaltedEvent != 0 || !run.Paused {
			t.Errorf("holds: %+v", run)
		}
		dead, err := b.DeadLetters(t.Context(), "acme", 0, 10)
		check(t, err)
		want := []store.DeadLetter{{Sequence: 4, Key: key("4"), Reason: "skipped", Source: "test", Attempts: 5, LastError: "HTTP 422", At: dead[0].At}}
		if diff := cmp.Diff(want, dead); diff != "" {
			t.Error(diff)
		}
		if not := refusal(b, 4); not.Halted {
			t.Errorf("once more: %v", not)
		}
	})
	t.Run("one above another", func(t *testing.T) {
		b := begin(t, store.Checkpoint{
			Cursor: 3, Settled: []int64{5, 5, 7, 8, 11, 12}, Scanned: 12, HaltedEvent: 6, EventAttempt: 1, PreviousSequence: 2,
			FailingEvents: []store.FailingEvent{{Sequence: 4, Attempts: 1, Wait: time.Hour}, {Sequence: 6, Attempts: 4}},
		})
		b.mustAsk(skip(6))
		run := b.run("acme")
		if run.Cursor != 3 || run.PreviousSequence != 2 || !cmp.Equal(run.Settled, []int64{5, 8, 11, 12}) || run.FailingEvents != nil {
			t.Errorf("%+v", run)
		}
		if dead, err := b.DeadLetters(t.Context(), "acme", 0, 10); err != nil || len(dead) != 1 || dead[0].Attempts != 4 {
			t.Errorf("%+v, %v", dead, err)
		}
	})
	t.Run("of a replay", func(t *testing.T) {
		b := begin(t, store.Checkpoint{
			Cursor: 4, Settled: []int64{6, 7}, Scanned: 7, HaltedEvent: 5, EventAttempt: 3, Replay: 1, ReplayDone: 4,
		})
		b.mustAsk(skip(5))
		r, run := b.readReplay(1), b.run("acme")
		if r.Cursor != 5 || r.PreviousSequence != 5 || r.EventAttempt != 0 || r.Done != 5 || !cmp.Equal(r.Settled, []int64{6, 7}) {
			t.Errorf("%+v", r)
		}
		if run.Cursor != 0 || len(run.Settled) != 0 || run.HaltedReason != nil {
			t.Errorf("the run: %+v", run)
		}
		if dead, err := b.DeadLetters(t.Context(), "acme", 0, 10); err != nil || len(dead) != 1 || dead[0].Attempts != 3 {
			t.Errorf("%+v, %v", dead, err)
		}
	})
	t.Run("where it is not halted", func(t *testing.T) {
		b := begin(t, store.Checkpoint{Cursor: 3, HaltedEvent: 4})
		if not := refusal(b, 5); !not.Halted || not.At != 4 || not.Error() != "the subscriber is halted at event 4, not at 5" {
			t.Errorf("%v", not)
		}
		b.exec(`UPDATE runs SET halted_event = NULL`)
		for _, n := range []int64{0, 4} {
			if not := refusal(b, n); !not.Halted || not.At != 0 {
				t.Errorf("%v", not)
			}
		}
		b.control(store.ControlResume)
		if not := refusal(b, 4); not.Halted {
			t.Errorf("%v", not)
		}
	})
	t.Run("after a seek", func(t *testing.T) {
		b := begin(t, store.Checkpoint{Cursor: 3, HaltedEvent: 4})
		b.mustAsk(seekTo(1))
		if not := refusal(b, 4); !not.Halted || not.At != 0 {
			t.Errorf("%v", not)
		}
		if run := b.run("acme"); run.HaltedReason == nil {
			t.Error("a seek ended the halt")
		}
	})
}

// TestSkipOfForgottenReplay: the replay at whose event a subscriber halted may be
// kept no longer when the event is skipped.
func TestSkipOfForgottenReplay(t *testing.T) {
	b := setup(t)
	b.publish(time.Hour, 1, 2, 3, 4, 5, 6)
	b.create("acme", event.Start{Where: "beginning"})
	b.exec(`UPDATE runs SET cursor = 6, halted_reason = 'refused', halted_event = 4, halted_replay = 1`)
	if skip := b.mustAsk(store.ControlRequest{Kind: store.ControlSkip, Sequence: 4}); !skip.InForce {
		t.Errorf("%+v", skip)
	}
	if run := b.run("acme"); run.HaltedReason != nil || run.Cursor != 6 {
		t.Errorf("%+v", run)
	}
	b.wantAside(aside{Dead: map[int64]string{4: store.DeadSkipped}})
}
