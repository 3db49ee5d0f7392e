package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

// parked parks acme at 7 of 9 and returns the checkpoint that did.
func (b *bundle) parked() *store.Checkpoint {
	b.t.Helper()
	b.publish(time.Hour, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	b.create("acme", event.Start{Where: "beginning"})
	lease, _ := b.take()
	park := &store.Checkpoint{ID: "acme", Lease: lease, Number: 1, Cursor: 7, Park: true}
	b.write(park)
	return park
}

// TestParkedControls: whoever parked a row and did not hear that it is parked says
// so again; what was done to the row meanwhile stands. Its holder has let go of it,
// so that nobody learns of a control but by being woken.
func TestParkedControls(t *testing.T) {
	t.Parallel()
	again := func(b *bundle, park *store.Checkpoint) {
		b.t.Helper()
		park.Number++
		if r := b.write(park)[0]; r.Held {
			b.t.Errorf("it was written over: %+v", r)
		}
	}
	t.Run("a seek", func(t *testing.T) {
		b := setup(t)
		park := b.parked()
		if seek := b.mustAsk(seekTo(3)); !seek.InForce {
			t.Errorf("%+v", seek)
		}
		again(b, park)
		if cursor := b.run("acme").Cursor; cursor != 3 {
			t.Errorf("cursor %d", cursor)
		}
	})
	t.Run("a release", func(t *testing.T) {
		b := setup(t)
		park := b.parked()
		park.Number++
		park.Aside = &store.AsideChanges{
			Hold: []store.HeldEvent{{Sequence: 5, Key: key("k")}}, Keys: []store.HeldKey{{Key: key("k"), Attempts: 5}},
		}
		b.write(park)
		b.mustAsk(store.ControlRequest{Kind: store.ControlHeldRelease, Key: key("k")})
		again(b, park)
		b.wantAside(aside{Dead: map[int64]string{5: store.DeadReleased}})
	})
	t.Run("is swept", func(t *testing.T) {
		for name, does := range map[string]func(b *bundle){
			"a replay":               func(b *bundle) { b.mustReplay(store.ReplayRequest{}) },
			"a resume":               func(b *bundle) { b.control(store.ControlResume) },
			"a seek":                 func(b *bundle) { b.mustAsk(seekTo(3)) },
			"a resume of its replay": func(b *bundle) { b.insertReplay(1, store.ReplayPaused); b.resumeReplay() },
		} {
			t.Run(name, func(t *testing.T) {
				b := setup(t)
				b.parked()
				swept := func() []string {
					b.exec(`UPDATE runs SET checked_at = checked_at - interval '1 hour', wake_at = wake_at - interval '1 hour'`)
					ids, err := b.SweepRows(t.Context(), time.Minute, 10)
					check(t, err)
					return ids
				}
				if ids := swept(); len(ids) != 0 {
					t.Fatalf("swept %v before", ids)
				}
				does(b)
				if diff := cmp.Diff([]string{"acme"}, swept()); diff != "" {
					t.Errorf("the wake was lost (-want +got):\n%s", diff)
				}
				taken, err := b.TakeLease(t.Context(), "acme", uuid.New())
				check(t, err)
				if !taken.Held || taken.Stale || taken.Run.WakeAt != nil {
					t.Errorf("%+v", taken)
				}
			})
		}
	})
}

func (b *bundle) resumeReplay() {
	b.t.Helper()
	_, _, err := b.ControlReplay(b.t.Context(), "acme", 1, store.ControlReplayResume, "api", "")
	check(b.t, err)
}
