package store_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/store"
)

// refused are two events that wait for their next attempt.
var refused = []store.FailingEvent{{Sequence: 10, Attempts: 2, Wait: time.Hour, Proven: true}, {Sequence: 14, Attempts: 1, Wait: time.Second}}

// soonest rounds the waits of events as they are read, which pass meanwhile.
func soonest(events []store.FailingEvent) []store.FailingEvent {
	for i := range events {
		events[i].Wait = time.Duration(math.Ceil(events[i].Wait.Seconds()/10)) * 10 * time.Second
	}
	return events
}

// insertReplay makes a replay of acme.
func (b *bundle) insertReplay(id int, state string) {
	b.t.Helper()
	b.exec(`INSERT INTO replays (subscriber, id, state, selection, after_sequence, through_sequence, total, source, cursor)
		VALUES ('acme', $1, $2, '{}', 100, 200, 50, 'test', 100)`, id, state)
}

func (b *bundle) readReplay(id int64) store.Replay {
	b.t.Helper()
	r, err := b.Replay(b.t.Context(), "acme", id)
	check(b.t, err)
	return r
}

func TestPositionWithGaps(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{Where: "beginning"})
	lease, _ := b.take()
	b.write(&store.Checkpoint{
		ID: "acme", Lease: lease, Number: 1, Cursor: 9, Settled: []int64{11, 13, 15, 20}, Scanned: 20, FailingEvents: refused,
		LearnedBatch: 40, LearnedLanes: 6, WakeAfter: time.Hour,
	})
	run := b.run("acme")
	want := store.Run{Cursor: 9, Settled: []int64{11, 13, 15, 20}, Scanned: 20, LearnedBatch: 40, LearnedLanes: 6}
	got := store.Run{Cursor: run.Cursor, Settled: run.Settled, Scanned: run.Scanned, LearnedBatch: run.LearnedBatch, LearnedLanes: run.LearnedLanes, WakeAt: run.WakeAt}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(store.Run{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantRefused := soonest([]store.FailingEvent{refused[0], {Sequence: 14, Attempts: 1, Wait: time.Second}})
	if diff := cmp.Diff(wantRefused, soonest(run.FailingEvents)); diff != "" {
		t.Errorf("refused events (-want +got):\n%s", diff)
	}
	// What is left to wait goes by PostgreSQL's clock.
	b.exec(`UPDATE runs SET failing_at = failing_at - interval '40 minutes'`)
	wantRefused[0].Wait, wantRefused[1].Wait = 20*time.Minute, 0
	if diff := cmp.Diff(wantRefused, soonest(b.run("acme").FailingEvents)); diff != "" {
		t.Errorf("refused events later (-want +got):\n%s", diff)
	}
	if start := b.run("acme").StartSequence; start == nil || *start != 0 {
		t.Errorf("it started at %v", start)
	}
	// The release before knows the cursor alone.
	b.exec(`UPDATE runs SET cursor = 12`)
	if run := b.run("acme"); !cmp.Equal(run.Settled, []int64{13, 13, 15, 20}) || len(run.FailingEvents) != 1 || run.FailingEvents[0].Sequence != 14 {
		t.Errorf("after the release before: %+v", run)
	}
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Cursor: 20})
	if run := b.run("acme"); run.FailingEvents != nil || run.Scanned != 0 || len(run.Settled) != 0 {
		t.Errorf("%+v", run)
	}
}

// TestLagWithGaps: a refused event does not make what was sent around it count as
// not sent.
func TestLagWithGaps(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{Where: "beginning"})
	b.publish(time.Hour, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	b.exec(`UPDATE runs SET cursor = 2, settled = '{4,6,8,9}', scanned = 9, lease = gen_random_uuid(), in_flight = 1`)
	s, err := b.Status(t.Context(), "acme")
	check(t, err)
	if s.LagEvents != 3 || s.Reason != "sending; 3 events behind" {
		t.Errorf("%d events behind: %s", s.LagEvents, s.Reason)
	}
	o, err := b.Overview(t.Context())
	check(t, err)
	if o.States["active"].LagEvents != 3 || len(o.Worst) != 1 || o.Worst[0].Events != 3 {
		t.Errorf("%+v", o)
	}
}

// TestReplayCheckpoint: the position of a replay is the replay's own.
func TestReplayCheckpoint(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, state string) (*bundle, *store.Checkpoint) {
		b := setup(t)
		b.create("acme", event.Start{Where: "beginning"})
		lease, _ := b.take()
		b.write(&store.Checkpoint{
			ID: "acme", Lease: lease, Number: 1, Cursor: 500, Settled: []int64{502, 503}, Scanned: 503, PreviousSequence: 499, EventAttempt: 1,
			FailingEvents: []store.FailingEvent{{Sequence: 501, Attempts: 1, Wait: time.Hour}},
		})
		b.insertReplay(1, state)
		return b, &store.Checkpoint{
			ID: "acme", Lease: lease, Number: 2, Cursor: 110, Settled: []int64{112, 115}, Scanned: 115, PreviousSequence: 109, EventAttempt: 3,
			FailingEvents: []store.FailingEvent{{Sequence: 111, Attempts: 3, Wait: time.Hour}}, Failures: 4, BatchLimit: 2,
			Replay: 1, ReplayDone: 12,
		}
	}
	t.Run("the run's stays", func(t *testing.T) {
		b, c := begin(t, "queued")
		b.exec(`UPDATE runs SET failing_at = failing_at - interval '40 minutes'`)
		b.create("other", event.Start{Where: "beginning"})
		b.exec(`INSERT INTO replays SELECT 'other', id, state, selection, after_sequence, through_sequence, total, done, source, created_at, NULL, NULL, cursor FROM replays`)
		b.write(c)
		if other, err := b.Replay(t.Context(), "other", 1); err != nil || other.Cursor != 100 {
			t.Errorf("another's replay: %+v, %v", other, err)
		}
		r := b.readReplay(1)
		if r.State != store.ReplayRunning || r.StartedAt == nil || r.FinishedAt != nil || r.Done != 12 || r.Cursor != 110 ||
			!cmp.Equal(r.Settled, []int64{112, 115}) || r.PreviousSequence != 109 || r.EventAttempt != 3 ||
			len(r.FailingEvents) != 1 || r.FailingEvents[0].Sequence != 111 {
			t.Errorf("%+v", r)
		}
		run := b.run("acme")
		if run.Cursor != 500 || !cmp.Equal(run.Settled, []int64{502, 503}) || run.Scanned != 503 || run.PreviousSequence != 499 ||
			run.EventAttempt != 1 || len(run.FailingEvents) != 1 || run.FailingEvents[0].Sequence != 501 || run.FailingEvents[0].Wait > 20*time.Minute {
			t.Errorf("the run's position: %+v", run)
		}
		if run.Failures != 4 || run.BatchLimit != 2 {
			t.Errorf("the schedule is the run's: %+v", run)
		}
		loaded, err := b.Load(t.Context(), "acme")
		check(t, err)
		if loaded.Replay == nil || loaded.Replay.ID != 1 || loaded.Replay.Cursor != 110 {
			t.Errorf("loaded %+v", loaded.Replay)
		}
		c.Number, c.Cursor, c.Settled, c.ReplayDone = 3, 105, nil, 50
		c.ReplayFinished, c.FailingEvents, c.EventAttempt = true, nil, 0
		b.write(c)
		if r := b.readReplay(1); r.State != store.ReplayDone || r.FinishedAt == nil || r.Done != 50 || r.Cursor != 110 || r.FailingEvents != nil {
			t.Errorf("finished: %+v", r)
		}
		c.Number, c.ReplayDone, c.ReplayFinished = 4, 7, false
		b.write(c)
		if r := b.readReplay(1); r.State != store.ReplayDone || r.Done != 50 {
			t.Errorf("after its end: %+v", r)
		}
	})
	t.Run("paused meanwhile", func(t *testing.T) {
		b, c := begin(t, "paused")
		b.write(c)
		if r := b.readReplay(1); r.State != store.ReplayPaused || r.Done != 12 || r.Cursor != 110 {
			t.Errorf("%+v", r)
		}
		if loaded, err := b.Load(t.Context(), "acme"); err != nil || loaded.Replay != nil {
			t.Errorf("a paused one is served: %+v, %v", loaded.Replay, err)
		}
	})
	t.Run("cancelled meanwhile", func(t *testing.T) {
		b, c := begin(t, "cancelled")
		c.ReplayFinished = true
		if r := b.write(c)[0]; !r.Held {
			t.Errorf("%+v", r)
		}
		if r := b.readReplay(1); r.State != store.ReplayCancelled || r.Done != 0 || r.Cursor != 100 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the first that is open", func(t *testing.T) {
		b, _ := begin(t, "done")
		b.insertReplay(2, "paused")
		b.insertReplay(3, "queued")
		b.insertReplay(4, "running")
		loaded, err := b.Load(t.Context(), "acme")
		check(t, err)
		if loaded.Replay == nil || loaded.Replay.ID != 3 {
			t.Errorf("loaded %+v", loaded.Replay)
		}
		b.exec(`UPDATE replays SET state = 'running', done = 10, started_at = clock_timestamp() - interval '5 seconds' WHERE id = 2`)
		b.exec(`UPDATE runs SET parked = true, failing = NULL, event_attempt = 0`)
		s, err := b.Status(t.Context(), "acme")
		check(t, err)
		if p := s.Replay; p == nil || p.ID != 2 || p.State != "running" || p.Done != 10 || p.Total != 50 || math.Round(p.Rate) != 2 ||
			p.ETASeconds == nil || math.Round(*p.ETASeconds/10) != 2 {
			t.Errorf("status shows %+v", s.Replay)
		}
		if s.State != store.StateActive || s.Reason != "sending replay 2; 10 of 50 events done" {
			t.Errorf("%s: %s", s.State, s.Reason)
		}
	})
}

// TestHaltedEvent: where a subscriber halted is known until the halt ends.
func TestHaltedEvent(t *testing.T) {
	t.Parallel()
	for name, replay := range map[string]int64{"new events": 0, "a replay": 1} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.create("acme", event.Start{Where: "beginning"})
			b.insertReplay(1, "running")
			lease, _ := b.take()
			b.write(&store.Checkpoint{
				ID: "acme", Lease: lease, Halt: "event 110 was refused", HaltedEvent: 110, Release: true, Replay: replay, EventAttempt: 5,
				FailingEvents: []store.FailingEvent{{Sequence: 110, Attempts: 5}},
			})
			if run := b.run("acme"); run.HaltedEvent != 110 || run.HaltedReplay != replay {
				t.Errorf("halted at %d of %d", run.HaltedEvent, run.HaltedReplay)
			}
			b.control(store.ControlResume)
			run, r := b.run("acme"), b.readReplay(1)
			if run.HaltedEvent != 0 || run.HaltedReplay != 0 || run.FailingEvents != nil || r.FailingEvents != nil || r.EventAttempt != 0 {
				t.Errorf("resumed: %+v, %+v", run, r)
			}
		})
	}
	t.Run("resuming from a pause forgives nothing", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{Where: "beginning"})
		lease, _ := b.take()
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Release: true, EventAttempt: 2, FailingEvents: refused})
		b.control(store.ControlPause)
		b.control(store.ControlResume)
		if run := b.run("acme"); len(run.FailingEvents) != 2 || run.EventAttempt != 2 {
			t.Errorf("%+v", run)
		}
	})
}

// TestReachingElsewhereEndsWaits: what was refused may be taken by another
// endpoint, and is due at once; it keeps its attempts.
func TestReachingElsewhereEndsWaits(t *testing.T) {
	b := setup(t)
	record := b.create("acme", event.Start{Where: "beginning"})
	b.insertReplay(1, "paused")
	b.exec(`UPDATE replays SET failing = '[{"sequence":110,"attempts":2,"wait_us":9000000000}]', failing_at = clock_timestamp()`)
	lease := b.hold(map[string][]int64{"a": {3}})
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Release: true, FailingEvents: []store.FailingEvent{{Sequence: 9, Attempts: 2, Wait: time.Hour}}})
	sub := record.Subscriber
	sub.Endpoint.URL = "https://elsewhere.example/hook"
	_, _, err := b.Replace(t.Context(), sub, event.Secrets{}, store.Change{Source: "test"})
	check(t, err)
	keys, err := b.HeldKeys(t.Context(), "acme", event.Key{}, 10)
	check(t, err)
	want := []store.FailingEvent{{Sequence: 9, Attempts: 2}}
	if run := b.run("acme"); !cmp.Equal(run.FailingEvents, want) || keys[0].Wait != 0 || keys[0].Attempts != 5 {
		t.Errorf("%+v, %+v", run.FailingEvents, keys)
	}
	if r := b.readReplay(1); !cmp.Equal(r.FailingEvents, []store.FailingEvent{{Sequence: 110, Attempts: 2}}) {
		t.Errorf("%+v", r.FailingEvents)
	}
}

// TestParkedWake: a parked row that has something to do at a time is looked at
// then, and its position is the one that it has scanned.
func TestParkedWake(t *testing.T) {
	t.Parallel()
	park := func(t *testing.T) (*bundle, *store.Checkpoint, store.CheckpointResult) {
		b := setup(t)
		b.create("acme", event.Start{Where: "beginning"})
		lease, _ := b.take()
		c := &store.Checkpoint{
			ID: "acme", Lease: lease, Cursor: 9, Settled: []int64{11, 20}, Scanned: 20, Park: true, WakeAfter: time.Hour,
			FailingEvents: []store.FailingEvent{{Sequence: 10, Attempts: 1, Wait: time.Hour}}, EventAttempt: 1, LastError: "HTTP 422",
		}
		result := b.write(c)[0]
		if at := b.run("acme").WakeAt; at == nil || time.Until(*at).Round(time.Minute) != time.Hour {
			t.Fatalf("it wakes at %v", at)
		}
		return b, c, result
	}
	swept := func(b *bundle) bool {
		ids, err := b.SweepRows(b.t.Context(), time.Minute, 10)
		check(b.t, err)
		return len(ids) > 0
	}
	t.Run("swept once it is due", func(t *testing.T) {
		b, _, _ := park(t)
		b.exec(`UPDATE runs SET checked_at = clock_timestamp() - interval '1 hour'`)
		if swept(b) {
			t.Error("it was not due")
		}
		b.exec(`UPDATE runs SET wake_at = clock_timestamp() - interval '2 minutes'`)
		if !swept(b) {
			t.Error("it was due for two minutes")
		}
		b.exec(`UPDATE runs SET paused = true`)
		if swept(b) {
			t.Error("it was paused")
		}
		b.exec(`UPDATE runs SET moves = 1`)
		if !swept(b) {
			t.Error("it has to be moved")
		}
	})
	t.Run("says when", func(t *testing.T) {
		b, _, _ := park(t)
		run := b.run("acme")
		want := "HTTP 422; tries again " + run.WakeAt.UTC().Format("15:04")
		if state, reason := store.Describe(&run); state != store.StateRetrying || (len(reason) < len(want) || reason[:len(want)] != want) && run.WakeAt.UTC().Day() == run.Now.UTC().Day() {
			t.Errorf("%s: %s, want %s", state, reason, want)
		}
	})
	t.Run("ended by a taker", func(t *testing.T) {
		b, _, _ := park(t)
		b.take()
		if at := b.run("acme").WakeAt; at != nil {
			t.Errorf("wakes at %v", at)
		}
	})
	t.Run("ended by unparking", func(t *testing.T) {
		b, c, result := park(t)
		b.exec(`UPDATE runs SET moves = 1`)
		if ok, err := b.Unpark(t.Context(), "acme", c.Lease, result.Generation, result.Desired); ok || err != nil {
			t.Errorf("unparked though it has to be moved: %v", err)
		}
		b.exec(`UPDATE runs SET moves = 0`)
		if ok, err := b.Unpark(t.Context(), "acme", c.Lease, result.Generation, result.Desired); !ok || err != nil {
			t.Errorf("not unparked: %v", err)
		}
		if at := b.run("acme").WakeAt; at != nil {
			t.Errorf("wakes at %v", at)
		}
	})
	t.Run("its position", func(t *testing.T) {
		b, _, result := park(t)
		rows, err := b.ParkedRows(t.Context(), "", 10)
		check(t, err)
		if len(rows) != 1 || rows[0].Cursor != 20 {
			t.Errorf("%+v", rows)
		}
		move := func(to int64) store.Run {
			_, err := b.MoveParkedCursors(t.Context(), []store.CursorMove{{ID: "acme", Generation: result.Generation, Cursor: to}})
			check(t, err)
			return b.run("acme")
		}
		if run := move(15); run.Scanned != 20 || run.Cursor != 9 {
			t.Errorf("moved back: %+v", run)
		}
		if run := move(30); run.Cursor != 9 || run.Scanned != 30 || !cmp.Equal(run.Settled, []int64{11, 30}) {
			t.Errorf("%+v", run)
		}
		b.exec(`UPDATE runs SET scanned = 31`)
		if run := move(40); run.Cursor != 9 || run.Scanned != 40 || !cmp.Equal(run.Settled, []int64{11, 30, 32, 40}) {
			t.Errorf("above a refused event: %+v", run)
		}
		b.exec(`UPDATE runs SET scanned = 0, settled = '{}'`)
		if run := move(50); run.Cursor != 50 || run.Scanned != 0 || len(run.Settled) != 0 {
			t.Errorf("without gaps: %+v", run)
		}
	})
}
