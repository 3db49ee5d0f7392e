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

func (b *bundle) run(id string) store.Run {
	b.t.Helper()
	run, err := b.Run(b.t.Context(), id)
	check(b.t, err)
	return run
}

func (b *bundle) write(batch ...*store.Checkpoint) []store.CheckpointResult {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	results, err := b.WriteCheckpoints(ctx, batch)
	check(b.t, err)
	return results
}

func (b *bundle) control(kind string) store.ControlResult {
	b.t.Helper()
	result, err := b.Control(b.t.Context(), store.ControlRequest{Subscriber: "acme", Kind: kind, Source: "test"})
	check(b.t, err)
	return result
}

func TestWriteCheckpoints(t *testing.T) {
	t.Parallel()
	begin := event.Start{Where: "beginning"}
	t.Run("round trip", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		c := &store.Checkpoint{
			ID: "acme", Lease: lease, Cursor: 9, Settled: []int64{11, 12}, PreviousSequence: 8,
			Wait: time.Hour, WaitReason: "HTTP 429", WaitClass: store.WaitAsked, Failing: true, FailingFor: 3 * time.Hour, Failures: 2, Asked: 3, EventAttempt: 4,
			RangeFirst: 10, RangeLast: 19, RangeAttempt: 5, Probe: true, BatchLimit: 6, InFlight: 7, LastError: "HTTP 429", Delivered: true,
		}
		b.write(c)
		run := b.run("acme")
		got := store.Checkpoint{
			ID: run.ID, Lease: *run.Lease, Cursor: run.Cursor, Settled: run.Settled, PreviousSequence: run.PreviousSequence,
			Wait: run.Remaining().Round(time.Minute), WaitReason: *run.WaitReason, WaitClass: *run.WaitClass,
			Failing: run.FailingSince != nil, FailingFor: run.Now.Sub(*run.FailingSince).Round(time.Minute),
			Failures: run.Failures, Asked: run.Asked, EventAttempt: run.EventAttempt,
			RangeFirst: run.RangeFirst, RangeLast: run.RangeLast, RangeAttempt: run.RangeAttempt, Probe: run.Probe,
			BatchLimit: run.BatchLimit, InFlight: run.InFlight, LastError: *run.LastError, Delivered: run.LastDeliveredAt != nil,
		}
		if diff := cmp.Diff(*c, got); diff != "" {
			t.Error(diff)
		}
		// It worked in between and fails anew: the row may never have seen that.
		c.FailingFor = time.Minute
		b.write(c)
		if again := b.run("acme"); again.Now.Sub(*again.FailingSince) > time.Hour {
			t.Error("failing_since is that of a failure that was over")
		}
		c.Wait, c.Failing, c.Delivered, c.WaitReason, c.WaitClass = 0, false, false, "", ""
		b.write(c)
		if again := b.run("acme"); again.NotBefore != nil || again.FailingSince != nil || again.LastDeliveredAt == nil || again.WaitReason != nil {
			t.Errorf("after the failure: %+v", again)
		}
	})
	t.Run("a try that arrives after a later one", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		at := func(number, cursor int64) *store.Checkpoint {
			return &store.Checkpoint{ID: "acme", Lease: lease, Number: number, Cursor: cursor, Park: cursor == 9}
		}
		b.write(at(3, 4))
		b.write(at(5, 9))
		b.write(at(4, 4))
		if run := b.run("acme"); !run.Parked || run.Cursor != 9 {
			t.Errorf("parked %t up to %d, want parked up to 9", run.Parked, run.Cursor)
		}
		lease, _ = b.take() // whose process counts anew
		if got := b.write(at(1, 10))[0]; !got.Held || b.run("acme").Cursor != 10 {
			t.Errorf("the next lease's first checkpoint: %+v", got)
		}
	})
	t.Run("never ends a hold", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Disable: true, Halt: "because"})
		b.control(store.ControlPause)
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Release: true})
		if run := b.run("acme"); !run.Disabled || run.HaltedReason == nil || !run.Paused || run.Lease != nil {
			t.Errorf("%+v", run)
		}
	})
	t.Run("a parking gets a generation of its own", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		first := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true})[0]
		run := b.run("acme")
		if !run.Parked || run.Generation != first.Generation || first.Generation == 0 {
			t.Errorf("parked %v, generation %d, want %d", run.Parked, run.Generation, first.Generation)
		}
		if _, held, _ := b.Confirm(t.Context(), "acme", lease); held {
			t.Error("a parked lease is confirmed")
		}
		ok, err := b.Unpark(t.Context(), "acme", lease, first.Generation, first.Desired)
		if err != nil || !ok {
			t.Fatalf("unpark: %v, %v", ok, err)
		}
		second := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true})[0]
		if second.Generation <= first.Generation {
			t.Errorf("generations %d, then %d", first.Generation, second.Generation)
		}
	})
	t.Run("a locked row holds up no other", func(t *testing.T) {
		b := setup(t)
		var batch []*store.Checkpoint
		for _, id := range []string{"a", "b", "c"} {
			b.create(id, begin)
			lease := uuid.New()
			_, err := b.TakeLease(t.Context(), id, lease)
			check(t, err)
			batch = append(batch, &store.Checkpoint{ID: id, Lease: lease, Cursor: 5})
		}
		batch = append(batch, &store.Checkpoint{ID: "c", Lease: uuid.New(), Cursor: 6})
		tx, err := b.pool.Begin(t.Context())
		check(t, err)
		_, err = tx.Exec(t.Context(), `SELECT FROM runs WHERE id = 'b' FOR UPDATE`)
		check(t, err)
		got := b.write(batch...)
		want := []store.CheckpointResult{{Held: true}, {Busy: true}, {Held: true}, {}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("beside a lock (-want +got):\n%s", diff)
		}
		check(t, tx.Rollback(t.Context()))
		if got := b.write(batch...)[1]; !got.Held || got.Busy || b.run("b").Cursor != 5 {
			t.Errorf("after it: %+v", got)
		}
	})
	t.Run("groups of two processes in opposite order", func(t *testing.T) {
		b := setup(t)
		var forth, back []*store.Checkpoint
		for _, id := range []string{"a", "b", "c", "d"} {
			b.create(id, begin)
			lease := uuid.New()
			_, err := b.TakeLease(t.Context(), id, lease)
			check(t, err)
			forth = append(forth, &store.Checkpoint{ID: id, Lease: lease})
			back = append([]*store.Checkpoint{{ID: id, Lease: lease}}, back...)
		}
		var wg sync.WaitGroup
		for _, batch := range [][]*store.Checkpoint{forth, back} {
			wg.Go(func() {
				for range 200 {
					if _, err := b.WriteCheckpoints(t.Context(), batch); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestControl(t *testing.T) {
	t.Parallel()
	begin := event.Start{Where: "beginning"}
	t.Run("in force at once where nobody sends", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		if r := b.control(store.ControlPause); !r.InForce || r.Version != 1 {
			t.Errorf("%+v", r)
		}
		b.control(store.ControlResume)
		lease, _ := b.take()
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true})
		if r := b.control(store.ControlPause); !r.InForce {
			t.Error("not in force on a parked row")
		}
	})
	t.Run("put in force by the holder", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		r := b.control(store.ControlPause)
		if r.InForce {
			t.Fatal("in force under a lease")
		}
		pending, err := b.PendingControls(t.Context())
		check(t, err)
		if diff := cmp.Diff(map[string]int64{"acme": r.Version}, pending); diff != "" {
			t.Error(diff)
		}
		if desired, held, err := b.Confirm(t.Context(), "acme", lease); err != nil || !held || desired != r.Version {
			t.Errorf("confirm: %d %v %v", desired, held, err)
		}
		result := b.write(&store.Checkpoint{ID: "acme", Lease: lease})[0]
		if inForce, _ := b.InForce(t.Context(), "acme", r.Version); inForce || result.Desired != r.Version {
			t.Errorf("a checkpoint that knew nothing of it put it in force; desired %d", result.Desired)
		}
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Applied: r.Version})
		if inForce, _ := b.InForce(t.Context(), "acme", r.Version); !inForce {
			t.Error("not in force after the holder said so")
		}
		if n := value[int](b, `SELECT count(*) FROM controls WHERE applied_at IS NULL`); n != 0 {
			t.Errorf("%d controls without applied_at", n)
		}
	})
	for name, next := range map[string]func(b *bundle, lease uuid.UUID){
		"given back": func(b *bundle, lease uuid.UUID) { b.write(&store.Checkpoint{ID: "acme", Lease: lease, Release: true}) },
		"parked":     func(b *bundle, lease uuid.UUID) { b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true}) },
		"taken":      func(b *bundle, _ uuid.UUID) { b.take() },
	} {
		t.Run("put in force when the lease is "+name, func(t *testing.T) {
			b := setup(t)
			b.create("acme", begin)
			lease, _ := b.take()
			r := b.control(store.ControlResume)
			next(b, lease)
			if inForce, _ := b.InForce(t.Context(), "acme", r.Version); !inForce {
				t.Error("not in force")
			}
			if n := value[int](b, `SELECT count(*) FROM controls WHERE applied_at IS NULL`); n != 0 {
				t.Errorf("%d controls without applied_at", n)
			}
		})
	}
	t.Run("put in force when the holder is gone", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		b.take()
		r := b.control(store.ControlPause)
		taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
		check(t, err)
		if taken.Held || !taken.Stale {
			t.Fatalf("%+v", taken)
		}
		check(t, b.ForceUnheld(t.Context(), "acme", false))
		if inForce, _ := b.InForce(t.Context(), "acme", r.Version); inForce {
			t.Error("in force before the old holder's second is over")
		}
		check(t, b.ForceUnheld(t.Context(), "acme", true))
		if inForce, _ := b.InForce(t.Context(), "acme", r.Version); !inForce {
			t.Error("not in force")
		}
	})
	t.Run("a holder that may send is not fenced", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		check(t, b.ForceUnheld(t.Context(), "acme", false)) // it was on hold when its caller looked
		if _, held, err := b.Confirm(t.Context(), "acme", lease); !held || err != nil {
			t.Errorf("the lease was taken away: %v", err)
		}
	})
	t.Run("a fenced holder's second is waited for, whatever comes meanwhile", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		b.take()
		b.control(store.ControlPause)
		check(t, b.ForceUnheld(t.Context(), "acme", false))
		// The process that fenced dies here, or is not the only one.
		if r := b.control(store.ControlResume); r.InForce {
			t.Error("a control is in force while the fenced holder may still send")
		}
		lease, taken := b.take()
		if !taken.Stale {
			t.Error("a taker need not wait for the fenced holder")
		}
		b.control(store.ControlPause)
		check(t, b.ForceUnheld(t.Context(), "acme", true)) // the first fencing's
		if run := b.run("acme"); run.Lease == nil || *run.Lease != lease || run.AppliedVersion == run.DesiredVersion {
			t.Errorf("a later holder was fenced without its second: lease %v, version %d of %d", run.Lease, run.AppliedVersion, run.DesiredVersion)
		}
	})
	t.Run("the same request is one control", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		request := store.ControlRequest{Subscriber: "acme", Kind: store.ControlPause, Source: "test", RequestID: "r1"}
		first, err := b.Control(t.Context(), request)
		check(t, err)
		b.control(store.ControlResume)
		again, err := b.Control(t.Context(), request)
		check(t, err)
		if again.Version != first.Version || b.run("acme").Paused {
			t.Errorf("versions %d and %d, paused %v", first.Version, again.Version, b.run("acme").Paused)
		}
	})
	t.Run("the same request twice at once is one control", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		tx, err := b.pool.Begin(t.Context())
		check(t, err)
		_, err = tx.Exec(t.Context(), `SELECT FROM runs FOR UPDATE`)
		check(t, err)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				r, err := b.Control(t.Context(), store.ControlRequest{Subscriber: "acme", Kind: store.ControlPause, Source: "test", RequestID: "r1"})
				if err != nil || r.Version != 1 {
					t.Errorf("version %d, %v", r.Version, err)
				}
			})
		}
		b.awaitLockWaiters(2)
		check(t, tx.Rollback(t.Context()))
		wg.Wait()
	})
	t.Run("one that is not recorded changes nothing", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		b.exec(`ALTER TABLE controls ADD CONSTRAINT none CHECK (version < 1)`)
		_, err := b.Control(t.Context(), store.ControlRequest{Subscriber: "acme", Kind: store.ControlPause, Source: "test"})
		if run := b.run("acme"); err == nil || run.Paused || run.DesiredVersion != 0 {
			t.Errorf("%v, paused %v, version %d", err, run.Paused, run.DesiredVersion)
		}
	})
	t.Run("refused", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		past := time.Now().Add(-time.Hour)
		_, err := b.Control(t.Context(), store.ControlRequest{Subscriber: "acme", Kind: store.ControlPause, Until: &past, Source: "test"})
		if !errors.Is(err, store.ErrUntilPast) || b.run("acme").DesiredVersion != 0 {
			t.Errorf("%v, version %d", err, b.run("acme").DesiredVersion)
		}
		_, err = b.Control(t.Context(), store.ControlRequest{Subscriber: "nobody", Kind: store.ControlPause, Source: "test"})
		if !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	const wait = `, not_before = clock_timestamp() + interval '1 hour', wait_reason = 'HTTP 429', wait_class = 'asked'`
	for name, test := range map[string]struct {
		hold  string
		waits bool
	}{
		"nothing holds: the wait ends":        {`paused = false` + wait, false},
		"paused: the wait stays":              {`paused = true` + wait, true},
		"a pause that is over does not count": {`paused = true, paused_until = clock_timestamp()` + wait, false},
		"halted":                              {`halted_reason = 'x', event_attempt = 5, failing_since = now(), failures = 3`, false},
		"disabled, halted and paused":         {`disabled = true, halted_reason = 'x', paused = true` + wait, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.create("acme", event.Start{Where: "beginning"})
			b.exec(`UPDATE runs SET ` + test.hold)
			b.control(store.ControlResume)
			run := b.run("acme")
			if run.Paused || run.Disabled || run.HaltedReason != nil || run.EventAttempt != 0 || run.FailingSince != nil || run.Failures != 0 {
				t.Errorf("still held: %+v", run)
			}
			if (run.Remaining() > 0) != test.waits {
				t.Errorf("waits %v, want a wait: %v", run.Remaining(), test.waits)
			}
		})
	}
}

func TestParkedRows(t *testing.T) {
	b := setup(t)
	sub := subscriber("acme")
	sub.Filter.ResourceNames = []string{"Property"}
	_, err := b.Create(t.Context(), sub, event.Secrets{})
	check(t, err)
	b.create("busy", event.Start{Where: "beginning"})
	lease, _ := b.take()
	parked := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true, Cursor: 5})[0]
	rows, err := b.ParkedRows(t.Context(), "", 10)
	check(t, err)
	want := []store.ParkedRow{{ID: "acme", FeedID: b.run("acme").FeedID, Filter: sub.Filter, Cursor: 5, Generation: parked.Generation}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Fatal(diff)
	}
	if _, ok, err := b.ParkedRow(t.Context(), "busy"); ok || err != nil {
		t.Errorf("busy is parked: %v", err)
	}
	for name, test := range map[string]struct {
		move store.CursorMove
		want int64
	}{
		"of another parking":  {store.CursorMove{ID: "acme", Generation: parked.Generation + 1, Cursor: 9}, 5},
		"of another filter":   {store.CursorMove{ID: "acme", Generation: parked.Generation, Version: 1, Cursor: 9}, 5},
		"backwards":           {store.CursorMove{ID: "acme", Generation: parked.Generation, Cursor: 4}, 5},
		"of what is known so": {store.CursorMove{ID: "acme", Generation: parked.Generation, Cursor: 7}, 7},
	} {
		b.exec(`UPDATE runs SET cursor = 5 WHERE id = 'acme'`)
		_, err := b.MoveParkedCursors(t.Context(), []store.CursorMove{test.move})
		check(t, err)
		if got := b.run("acme").Cursor; got != test.want {
			t.Errorf("a move %s: cursor %d, want %d", name, got, test.want)
		}
	}
}

func TestMoveParkedCursorsPassesOverLockedRows(t *testing.T) {
	b := setup(t)
	for _, id := range []string{"a", "b", "c"} {
		b.create(id, event.Start{Where: "beginning"})
	}
	b.exec(`UPDATE runs SET parked = true`)
	tx, err := b.pool.Begin(t.Context())
	check(t, err)
	defer func() { check(t, tx.Rollback(context.Background())) }()
	_, err = tx.Exec(t.Context(), `SELECT FROM runs WHERE id = 'b' FOR UPDATE`)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	moved, err := b.MoveParkedCursors(ctx, []store.CursorMove{{ID: "a", Cursor: 1}, {ID: "b", Cursor: 1}, {ID: "c", Cursor: 1}})
	if err != nil || moved != 2 || b.run("b").Cursor != 0 {
		t.Errorf("moved %d, %v", moved, err)
	}
}

func TestSweepRows(t *testing.T) {
	b := setup(t)
	neglected := map[string]string{
		"runnable": ``,
		"waited":   `, not_before = clock_timestamp() - interval '2 minutes'`,
		"pending":  `, paused = true, desired_version = 1`,
	}
	left := map[string]string{
		"checked": `, checked_at = clock_timestamp()`,
		"parked":  `, parked = true`,
		"paused":  `, paused = true`,
		"waiting": `, not_before = clock_timestamp() + interval '1 minute'`,
		"just":    `, not_before = clock_timestamp() - interval '1 second'`,
		"halted":  `, halted_reason = 'x'`,
		"deleted": `, deleted = true`,
	}
	for _, group := range []map[string]string{neglected, left} {
		for id, set := range group {
			b.create(id, event.Start{Where: "beginning"})
			b.exec(`UPDATE runs SET checked_at = clock_timestamp() - interval '2 minutes' WHERE id = $1`, id)
			b.exec(`UPDATE runs SET id = id`+set+` WHERE id = $1`, id)
		}
	}
	ids, err := b.SweepRows(t.Context(), time.Minute, 100)
	check(t, err)
	for _, id := range ids {
		if _, ok := neglected[id]; !ok {
			t.Errorf("%s is swept", id)
		}
	}
	if len(ids) != len(neglected) {
		t.Errorf("swept %v", ids)
	}
	tombstones, err := b.Tombstones(t.Context(), 10)
	check(t, err)
	if diff := cmp.Diff([]string{"deleted"}, tombstones); diff != "" {
		t.Error(diff)
	}
}
