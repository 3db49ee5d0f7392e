package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/store"
)

// TestSeek moves a row that nobody holds.
func TestSeek(t *testing.T) {
	t.Parallel()
	const all = `cursor = 5, settled = '{7,8,10,12}', scanned = 12, failing_at = clock_timestamp(), event_attempt = 2, previous_sequence = 5,
		failing = '[{"sequence":6,"attempts":2,"wait_us":9000000},{"sequence":9,"attempts":1,"wait_us":9000000}]',
		range_first = 6, range_last = 6, range_attempt = 2, not_before = clock_timestamp() + interval '1 hour', paused = true`
	prepare := func(t *testing.T) *bundle {
		b := setup(t)
		b.publish(2*time.Hour, 1, 2, 3, 4, 5, 6, 7)
		b.publish(time.Hour, 8, 9, 10, 11, 12, 13, 14, 15)
		b.create("acme", event.Start{Where: "beginning"})
		lease := b.hold(map[string][]int64{"low": {2}, "both": {3, 7}, "high": {8}}, 1, 4, 11)
		b.write(&store.Checkpoint{ID: "acme", Lease: lease, Number: 2, Release: true})
		b.exec(`UPDATE runs SET ` + all)
		return b
	}
	ago := func(d time.Duration) *time.Time { at := time.Now().Add(-d); return &at }
	everything := aside{Held: map[string][]int64{"low": {2}, "both": {3, 7}, "high": {8}}, Dead: map[int64]string{1: "exhausted", 4: "exhausted", 11: "exhausted"}}
	for name, test := range map[string]struct {
		target  store.SeekTarget
		cursor  int64
		settled []int64
		scanned int64
		failing []int64
		aside   aside
	}{
		"back": {
			target: store.SeekTarget{Sequence: new(int64(3))}, cursor: 3,
			aside: aside{Held: map[string][]int64{"low": {2}, "both": {3}}, Dead: map[int64]string{1: "exhausted"}},
		},
		"to where it is": {
			target: store.SeekTarget{Sequence: new(int64(5))}, cursor: 5,
			aside: aside{Held: map[string][]int64{"low": {2}, "both": {3}}, Dead: map[int64]string{1: "exhausted", 4: "exhausted"}},
		},
		"to the beginning": {target: store.SeekTarget{Beginning: true}, cursor: 0},
		"forward into what is settled": {
			target: store.SeekTarget{Sequence: new(int64(7))}, cursor: 7, settled: []int64{8, 8, 10, 12}, scanned: 12, failing: []int64{9}, aside: everything,
		},
		"forward past all":     {target: store.SeekTarget{Sequence: new(int64(14))}, cursor: 14, aside: everything},
		"to now":               {target: store.SeekTarget{Now: true}, cursor: 15, aside: everything},
		"to a time":            {target: store.SeekTarget{Time: ago(90 * time.Minute)}, cursor: 7, settled: []int64{8, 8, 10, 12}, scanned: 12, failing: []int64{9}, aside: everything},
		"to a time before all": {target: store.SeekTarget{Time: ago(time.Hour * 9)}, cursor: 0},
		"to a time after all":  {target: store.SeekTarget{Time: ago(10 * time.Minute)}, cursor: 15, aside: everything},
	} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t)
			result := b.mustAsk(store.ControlRequest{Kind: store.ControlSeek, Seek: &test.target})
			if !result.InForce || !b.inForce(result.Version) {
				t.Errorf("nobody holds it, but %+v", result)
			}
			run := b.run("acme")
			var failing []int64
			for _, e := range run.FailingEvents {
				failing = append(failing, e.Sequence)
			}
			got := []any{run.Cursor, fmt.Sprint(run.Settled), run.Scanned, fmt.Sprint(failing), run.PreviousSequence, run.EventAttempt, run.RangeFirst, run.RangeAttempt, run.Moves}
			want := []any{test.cursor, fmt.Sprint(test.settled), test.scanned, fmt.Sprint(test.failing), int64(0), 0, int64(0), 0, 0}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !run.Paused || run.Remaining() == 0 {
				t.Errorf("it ended a hold or a wait: %+v", run)
			}
			b.wantAside(test.aside)
			args := value[map[string]any](b, `SELECT args FROM controls WHERE version = $1`, result.Version)
			if args["from"] != 5.0 || args["to"] != float64(test.cursor) {
				t.Errorf("recorded: %v", args)
			}
		})
	}
}

func TestSeekRefused(t *testing.T) {
	b := setup(t)
	b.publish(time.Hour, 1, 2, 3, 4, 5)
	b.create("acme", event.Start{Where: "now"})
	b.exec(`UPDATE feeds SET floor_sequence = 2 WHERE name = 'default'`)
	ago := time.Now().Add(-2 * time.Hour)
	var above *store.SeekAboveHeadError
	if _, err := b.ask(seekTo(6)); !errors.As(err, &above) || above.Head != 5 || above.Sequence != 6 {
		t.Errorf("above the head: %v", err)
	}
	var below *store.SeekBelowFloorError
	if _, err := b.ask(seekTo(1)); !errors.As(err, &below) || below.FirstSequence != 3 || below.Sequence != 1 {
		t.Errorf("below the floor: %v", err)
	}
	if _, err := b.ask(seekTo(-1)); !errors.As(err, &below) {
		t.Errorf("below zero: %v", err)
	}
	at := store.ControlRequest{Kind: store.ControlSeek, Seek: &store.SeekTarget{Time: &ago}}
	if _, err := b.ask(at); !errors.As(err, &below) || below.FirstSequence != 3 {
		t.Errorf("a time of which some is removed: %v", err)
	}
	future := time.Now().Add(time.Hour)
	if _, err := b.ask(store.ControlRequest{Kind: store.ControlSeek, Seek: &store.SeekTarget{Time: &future}}); !errors.Is(err, store.ErrSeekFuture) {
		t.Errorf("a time to come: %v", err)
	}
	for name, target := range map[string]*store.SeekTarget{"no target": nil, "an empty one": {}} {
		if _, err := b.ask(store.ControlRequest{Kind: store.ControlSeek, Seek: target}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	b.exec(`DELETE FROM runs`)
	if _, err := b.ask(seekTo(3)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if n := value[int](b, `SELECT count(*) FROM controls`); n != 0 {
		t.Errorf("%d controls are recorded", n)
	}
}

// TestSeekWaitsForTheFloor: a seek that is taken while a floor is being raised
// does not go below it.
func TestSeekWaitsForTheFloor(t *testing.T) {
	b := setup(t)
	b.publish(time.Hour, 1, 2, 3, 4, 5)
	b.create("acme", event.Start{Where: "now"})
	tx, err := b.pool.Begin(t.Context())
	check(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), `UPDATE feeds SET floor_sequence = 3 WHERE name = 'default'`)
	check(t, err)
	answer, other := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := b.ask(seekTo(2))
		answer <- err
	}()
	go func() {
		_, err := b.ask(store.ControlRequest{Kind: store.ControlSeek, Seek: &store.SeekTarget{Beginning: true}})
		other <- err
	}()
	b.awaitLockWaiters(2)
	check(t, tx.Commit(t.Context()))
	var below *store.SeekBelowFloorError
	if err := <-answer; !errors.As(err, &below) || below.FirstSequence != 4 {
		t.Errorf("%v", err)
	}
	if err, cursor := <-other, b.run("acme").Cursor; err != nil || cursor != 3 {
		t.Errorf("the beginning is %d, %v", cursor, err)
	}
}

// TestSeekOfAParkedRow: wakers learn the new position, and what they were about to
// write of the old one is void.
func TestSeekOfAParkedRow(t *testing.T) {
	b := setup(t)
	b.publish(time.Hour, 1, 2, 3, 4, 5)
	b.create("acme", event.Start{Where: "beginning"})
	lease, _ := b.take()
	parked := b.write(&store.Checkpoint{ID: "acme", Lease: lease, Cursor: 4, Park: true})[0]
	row, ok, err := b.ParkedRow(t.Context(), "acme")
	if err != nil || !ok {
		t.Fatal(err)
	}
	next := b.listen(store.ParkedChannel)
	result := b.mustAsk(seekTo(1))
	if got := next(); got != "acme" || !result.InForce {
		t.Errorf("told of %q, in force: %v", got, result.InForce)
	}
	_, err = b.MoveParkedCursors(t.Context(), []store.CursorMove{{ID: "acme", Generation: row.Generation, Version: row.Version, Cursor: 5}})
	check(t, err)
	if ok, err := b.Unpark(t.Context(), "acme", lease, parked.Generation, parked.Desired); ok || err != nil {
		t.Errorf("the run that parked goes on at the old position: %v", err)
	}
	row, ok, err = b.ParkedRow(t.Context(), "acme")
	if err != nil || !ok || row.Cursor != 1 {
		t.Errorf("%+v, %v", row, err)
	}
	// Should every wake be lost, the sweep finds it.
	b.exec(`UPDATE runs SET checked_at = clock_timestamp() - interval '2 minutes', wake_at = wake_at - interval '2 minutes'`)
	if ids, err := b.SweepRows(t.Context(), time.Minute, 10); len(ids) != 1 || err != nil {
		t.Errorf("swept %v, %v", ids, err)
	}
}
