package store_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

// take takes the lease of acme and fails the test where it is not held.
func (b *bundle) take() (uuid.UUID, store.Taken) {
	b.t.Helper()
	lease := uuid.New()
	taken, err := b.TakeLease(b.t.Context(), "acme", lease)
	check(b.t, err)
	if !taken.Held {
		b.t.Fatalf("not held: %+v", taken.Run)
	}
	return lease, taken
}

func TestTakeLease(t *testing.T) {
	t.Parallel()
	begin := event.Start{Where: "beginning"}
	t.Run("fences whoever held it", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		first, taken := b.take()
		if taken.Stale {
			t.Error("a first lease found another")
		}
		second, taken := b.take()
		if !taken.Stale || *taken.Run.Lease != second {
			t.Errorf("stale %v, lease %v", taken.Stale, taken.Run.Lease)
		}
		old, current := &store.Checkpoint{ID: "acme", Lease: first, Cursor: 7}, &store.Checkpoint{ID: "acme", Lease: second, Cursor: 3}
		if result := b.write(old)[0]; result.Held || result.Busy || b.run("acme").Cursor != 0 {
			t.Errorf("%+v, cursor %d", result, b.run("acme").Cursor)
		}
		for _, batch := range [][]*store.Checkpoint{{old, current}, {current, old}} {
			for i, result := range b.write(batch...) {
				if result.Held != (batch[i] == current) || b.run("acme").Cursor != 3 {
					t.Errorf("%+v, cursor %d", result, b.run("acme").Cursor)
				}
			}
		}
		if _, held, err := b.Confirm(t.Context(), "acme", first); held || err != nil {
			t.Errorf("the fenced lease is confirmed: %v", err)
		}
		if _, held, err := b.Confirm(t.Context(), "acme", second); !held || err != nil {
			t.Errorf("the lease is not confirmed: %v", err)
		}
	})
	t.Run("a lease kept by a parked row is not stale", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		lease, _ := b.take()
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true})
		if _, taken := b.take(); taken.Stale || taken.Run.Parked {
			t.Errorf("stale %v, parked %v", taken.Stale, taken.Run.Parked)
		}
	})
	for name, hold := range map[string]string{
		"paused":   `paused = true`,
		"for long": `paused = true, paused_until = clock_timestamp() + interval '1 hour'`,
		"halted":   `halted_reason = 'x'`,
		"disabled": `disabled = true`,
		"deleted":  `deleted = true`,
		"waiting":  `not_before = clock_timestamp() + interval '1 hour'`,
	} {
		t.Run("not while "+name, func(t *testing.T) {
			b := setup(t)
			b.create("acme", begin)
			b.exec(`UPDATE runs SET ` + hold)
			taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
			check(t, err)
			if taken.Held || b.run("acme").Lease != nil {
				t.Errorf("held %v, lease %v", taken.Held, b.run("acme").Lease)
			}
		})
	}
	t.Run("ends a pause whose time has come", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		b.exec(`UPDATE runs SET paused = true, pause_reason = 'x', paused_until = clock_timestamp()`)
		b.take()
		if run := b.run("acme"); run.Paused || run.PausedUntil != nil || run.PauseReason != nil {
			t.Errorf("still paused: %+v", run)
		}
	})
	t.Run("sees a hold that commits while it waits for the row", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		tx, err := b.pool.Begin(t.Context())
		check(t, err)
		_, err = tx.Exec(t.Context(), `UPDATE runs SET paused = true`)
		check(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
			if err != nil || taken.Held {
				t.Errorf("held %v, %v", taken.Held, err)
			}
		})
		b.awaitLockWaiters(1)
		check(t, tx.Commit(t.Context()))
		wg.Wait()
	})
	t.Run("finds a lease that commits while it waits for the row", func(t *testing.T) {
		b := setup(t)
		b.create("acme", begin)
		tx, err := b.pool.Begin(t.Context())
		check(t, err)
		_, err = tx.Exec(t.Context(), `UPDATE runs SET lease = gen_random_uuid()`)
		check(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
			if err != nil || !taken.Held || !taken.Stale {
				t.Errorf("held %v, stale %v, %v", taken.Held, taken.Stale, err)
			}
		})
		b.awaitLockWaiters(1)
		check(t, tx.Commit(t.Context()))
		wg.Wait()
	})
	t.Run("unknown", func(t *testing.T) {
		b := setup(t)
		if _, err := b.TakeLease(t.Context(), "nobody", uuid.New()); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestUnpark(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile string
		ok        bool
	}{
		"nobody came between": {`lease = lease`, true},
		"another lease":       {`lease = gen_random_uuid()`, false},
		"another parking":     {`generation = generation + 1`, false},
		"a control":           {`desired_version = desired_version + 1`, false},
		"a hold":              {`halted_reason = 'x'`, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.create("acme", event.Start{Where: "beginning"})
			lease, _ := b.take()
			parked := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Park: true})[0]
			b.exec(`UPDATE runs SET ` + test.meanwhile)
			ok, err := b.Unpark(t.Context(), "acme", lease, parked.Generation, parked.Desired)
			check(t, err)
			if ok != test.ok || b.run("acme").Parked == test.ok {
				t.Errorf("unparked %v, the row is parked: %v", ok, b.run("acme").Parked)
			}
		})
	}
}
